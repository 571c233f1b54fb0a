use super::*;

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Writes an output of two files that say who wrote it.
fn write(destination: &Path, replace: bool, who: &str) -> Result<()> {
    let staged = StagedDir::create(destination, replace, "marker")?;
    staged.write("first", who.as_bytes())?;
    std::thread::yield_now();
    staged.write("marker", who.as_bytes())?;
    staged.commit()
}

#[test]
fn a_dropped_directory_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let destination = dir.path().join("deep/out");
    let staged = StagedDir::create(&destination, false, "marker").unwrap();
    staged.write("file", b"x").unwrap();
    drop(staged);
    assert!(names(&dir.path().join("deep")).is_empty());
}

#[test]
fn only_a_marked_directory_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let destination = dir.path().join("out");
    fs::create_dir(&destination).unwrap();
    fs::write(destination.join("precious"), "x").unwrap();
    for replace in [false, true] {
        assert!(matches!(write(&destination, replace, ""), Err(FormatError::Exists { .. })));
    }
    fs::write(destination.join("marker"), "x").unwrap();
    write(&destination, true, "").unwrap();
    assert_eq!(names(&destination), ["first", "marker"]);
    assert_eq!(names(dir.path()), ["out"]);
}

#[test]
fn what_came_meanwhile_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let destination = dir.path().join("out");
    for replace in [false, true] {
        let staged = StagedDir::create(&destination, replace, "marker").unwrap();
        fs::create_dir(&destination).unwrap();
        fs::write(destination.join("precious"), "x").unwrap();
        assert!(matches!(staged.commit(), Err(FormatError::Exists { .. })));
        assert_eq!((names(&destination), names(dir.path())), (vec!["precious".into()], vec!["out".into()]));
        fs::remove_dir_all(&destination).unwrap();
    }
}

#[test]
fn a_place_that_is_being_written_is_busy_unless_it_may_be_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let destination = dir.path().join("out");
    let first = StagedDir::create(&destination, false, "marker").unwrap();
    assert!(matches!(StagedDir::create(&destination, false, "marker"), Err(FormatError::Busy { .. })));
    write(&destination, true, "second").unwrap();
    assert!(matches!(first.commit(), Err(FormatError::Exists { .. })));
    assert_eq!(fs::read(destination.join("first")).unwrap(), b"second");
    assert_eq!(names(dir.path()), ["out"]);
}

/// Without locks, these fail: writers remove each other's folders, or one reports success for a place where there is nothing.
#[test]
fn many_writers_of_one_place_each_end_with_a_whole_output_or_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let destination = dir.path().join("out");
    let whole = || fs::read(destination.join("first")).is_ok_and(|who| !who.is_empty());
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let (destination, whole) = (&destination, &whole);
            scope.spawn(move || {
                for _ in 0..20 {
                    write(destination, true, &writer.to_string()).unwrap();
                    assert!(whole());
                }
            });
        }
    });
    assert_eq!(names(dir.path()), ["out"]);
    fs::remove_dir_all(&destination).unwrap();
    let written = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|writer| {
                scope.spawn({
                    let destination = &destination;
                    move || write(destination, false, &writer.to_string())
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(written.iter().filter(|result| result.is_ok()).count(), 1, "{written:?}");
    for error in written.into_iter().filter_map(Result::err) {
        assert!(matches!(error, FormatError::Busy { .. } | FormatError::Exists { .. }), "{error}");
    }
    let by = fs::read(destination.join("first")).unwrap();
    assert_eq!(by, fs::read(destination.join("marker")).unwrap());
    assert_eq!(names(dir.path()), ["out"]);
}

#[test]
fn a_link_stays_and_its_directory_is_written() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("real")).unwrap();
    std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
    write(&dir.path().join("link"), false, "x").unwrap();
    assert!(fs::symlink_metadata(dir.path().join("link")).unwrap().is_symlink());
    assert_eq!(names(&dir.path().join("real")), ["first", "marker"]);
}

#[test]
fn a_file_is_replaced_whole_and_keeps_its_link() {
    let dir = tempfile::tempdir().unwrap();
    let (file, link) = (dir.path().join("file"), dir.path().join("link"));
    write_file(&file, b"one").unwrap();
    std::os::unix::fs::symlink("file", &link).unwrap();
    write_file(&link, b"two").unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"two");
    assert_eq!(names(dir.path()), ["file", "link"]);
    write_file(Path::new("/dev/null"), b"x").unwrap();
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
    assert!(write_file(dir.path(), b"x").is_err());
}
