//! Queues of their own, and descriptors that say when outputs wait.

use super::*;

#[test]
fn a_queue_has_the_outputs_of_its_own_requests() {
    let executor = Hasty::new(|id, _| vec![tokens(id, 0, "one ", None), tokens(id, 0, "two", Some(true))]);
    let session = Session::start(executor, Some(tokenizer())).unwrap();
    let queues = [session.new_queue(), session.new_queue()];
    let mut submitted = Vec::new();
    for number in 0..6 {
        let destination = match number % 3 {
            2 => Destination::Session,
            queue => Destination::Queue(queues[queue].clone()),
        };
        submitted.push(session.submit(Submission { destination, ..submission(1, &[]) }).unwrap());
    }
    // Nobody takes from the queues meanwhile: it holds up nobody.
    let shared = outputs(&session, 2);
    let of = |queue: usize| {
        let mut all = Vec::new();
        while all.iter().filter(|output: &&Output| output.response.is_final()).count() < 2 {
            match queues[queue].take(Some(Duration::from_secs(20))) {
                Awaited::Outputs(outputs) => all.extend(outputs),
                other => panic!("{other:?}"),
            }
        }
        all
    };
    for (number, all) in [(0, of(0)), (1, of(1)), (2, shared)] {
        assert_eq!(all.len(), 4);
        assert_eq!(texts(&all, submitted[number].0), "one two");
        assert_eq!(texts(&all, submitted[number + 3].0), "one two");
    }
}

#[test]
fn a_callback_that_fails_says_how_its_request_ended() {
    let executor = Hasty::new(|id, _| {
        vec![tokens(id, 0, "one ", None), tokens(id, 0, "two", None), tokens(id, 0, "three", Some(true))]
    });
    let session = Session::start(executor.clone(), Some(tokenizer())).unwrap();
    let (sender, receiver) = channel();
    let on_output = move |output: Output| {
        let last = output.response.is_final();
        let fails = last || output.text == "two";
        sender.send((output.text, output.response)).unwrap();
        if fails { Err(format!("the host's disk is full, {last}")) } else { Ok(()) }
    };
    let destination = Destination::Callback(Box::new(on_output));
    let failing = session.submit(Submission { destination, tag: 7, ..submission(1, &[]) }).unwrap();
    assert_eq!(texts(&outputs_of(&session, submission(1, &[])), failing.0 + 1), "one twothree");
    let told: Vec<_> = receiver.iter().collect();
    assert_eq!(told.len(), 3, "two outputs and the error: {told:?}");
    let error = Response::Error { request_id: failing, message: "the host's disk is full, false".to_owned() };
    assert_eq!(told[2].1, error, "a failure of the final call is of no consequence");
    assert_eq!(executor.state.lock().unwrap().cancelled, [(failing, None)]);
}

/// Submits and waits for the end.
fn outputs_of(session: &Session, submission: Submission) -> Vec<Output> {
    session.submit(submission).unwrap();
    outputs(session, 1)
}

#[test]
fn an_abandoned_queue_ends_its_requests() {
    let executor = Hasty::new(|id, _| vec![tokens(id, 0, "one ", None)]);
    let session = Session::start(executor.clone(), Some(tokenizer())).unwrap();
    let queue = session.new_queue();
    queue.abandon();
    assert_eq!(queue.take(None), Awaited::Closed);
    let lost =
        session.submit(Submission { destination: Destination::Queue(queue.clone()), ..submission(1, &[]) }).unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while executor.state.lock().unwrap().cancelled != [(lost, None)] {
        assert!(Instant::now() < until, "the request of a queue that nobody reads runs on");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(queue.take(Some(Duration::ZERO)), Awaited::Closed);
}

#[test]
fn a_descriptor_is_readable_while_outputs_wait() {
    let executor = Hasty::new(|id, _| vec![tokens(id, 0, "all", Some(true))]);
    let session = Session::start(executor, Some(tokenizer())).unwrap();
    let queue = session.new_queue();
    let submit =
        || session.submit(Submission { destination: Destination::Queue(queue.clone()), ..submission(1, &[]) }).unwrap();
    // One that is asked for before there are outputs, and one after.
    let early = queue.event_fd().unwrap();
    assert!(!readable(&early, 0));
    submit();
    assert!(readable(&early, 20_000));
    let late = queue.event_fd().unwrap();
    assert!(readable(&late, 0) && readable(&early, 0), "it stays readable until the outputs are taken");
    assert!(matches!(queue.take(None), Awaited::Outputs(_)));
    assert!(!readable(&late, 0) && !readable(&early, 0));
    drop(early);
    submit();
    assert!(readable(&late, 20_000), "each descriptor is its owner's");
    let shared = session.queue().event_fd().unwrap();
    assert!(!readable(&shared, 0), "another queue's");
    session.shutdown(Shutdown::Cancel);
    assert!(readable(&shared, 0), "whoever waits learns of the end");
    assert!(matches!(queue.take(None), Awaited::Outputs(_)));
    assert!(readable(&late, 0));
    assert_eq!(queue.take(None), Awaited::Closed);
    assert!(readable(&queue.event_fd().unwrap(), 0));
}

fn readable(descriptor: &std::os::fd::OwnedFd, timeout_ms: i32) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut descriptors = [PollFd::new(descriptor, PollFlags::IN)];
    let timeout = Timespec { tv_sec: i64::from(timeout_ms / 1000), tv_nsec: 0 };
    poll(&mut descriptors, Some(&timeout)).unwrap() == 1
}
