//! A logits post-processor beside the final output of its request, on which the executor may still work.

use std::sync::atomic::{AtomicUsize, Ordering};

use runner::executor::LogitsContext;

use super::*;

/// A post-processor that counts its calls, shared by several requests.
struct Counted {
    hook: LogitsPostProcessor,
    calls: Arc<AtomicUsize>,
}

impl Counted {
    fn new() -> Self {
        let calls = Arc::new(AtomicUsize::new(0));
        let counts = calls.clone();
        let hook = LogitsPostProcessor::new(move |_, _| {
            counts.fetch_add(1, Ordering::SeqCst);
            Ok(())
        });
        Self { hook, calls }
    }

    fn submission(&self, stops: &[&str]) -> Submission {
        let hook = Some(self.hook.clone());
        let spec = RequestSpec { logits_post_processor: hook, ..RequestSpec::new(vec![5], 50) };
        Submission { request: Request::new(spec, LIMITS, 1 << 20).unwrap(), ..submission(1, stops) }
    }
}

/// How often a step of the executor on a request calls the function that the host gave.
fn called(executor: &Hasty, calls: &AtomicUsize, request: usize) -> usize {
    let hook = executor.state.lock().unwrap().hooks[request].clone();
    let context = LogitsContext { request_id: RequestId(0), sequence_index: 0, token_ids: &[5], num_prompt_tokens: 1 };
    let before = calls.load(Ordering::SeqCst);
    hook.process(&context, &mut [0.0; 4]).unwrap();
    calls.load(Ordering::SeqCst) - before
}

#[test]
fn no_hook_is_called_after_the_final_output_of_its_request() {
    let counted = Counted::new();
    // It ends none of the requests.
    let executor = Hasty::new(|id, _| vec![tokens(id, 0, "one two", None)]);
    let session = Session::start(executor.clone(), Some(tokenizer())).unwrap();
    session.submit(counted.submission(&[])).unwrap();
    session.submit(counted.submission(&["two"])).unwrap();
    outputs(&session, 1);
    let (sender, receiver) = channel();
    let (steps, calls) = (executor.clone(), counted.calls.clone());
    let destination = Destination::Callback(Box::new(move |output: Output| {
        sender.send((output.response.is_final(), called(&steps, &calls, 2))).unwrap();
        Err("the host's disk is full".to_owned())
    }));
    session.submit(Submission { destination, ..counted.submission(&[]) }).unwrap();
    assert_eq!(receiver.iter().collect::<Vec<_>>(), [(false, 1), (true, 0)], "the callback fails, and is told so");
    let called: Vec<_> = (0..3).map(|request| called(&executor, &counted.calls, request)).collect();
    assert_eq!(called, [1, 0, 0], "one goes on, a stop string has ended one, its callback one");
}

#[test]
fn a_final_output_waits_for_the_call_that_runs() {
    let (begins, has_begun) = channel();
    let (ends, may_end) = channel::<()>();
    let (begins, may_end) = (Mutex::new(begins), Mutex::new(may_end));
    let hook = LogitsPostProcessor::new(move |_, _| {
        begins.lock().unwrap().send(()).unwrap();
        may_end.lock().unwrap().recv().unwrap();
        Ok(())
    });
    // The test gives its answers.
    let executor = Hasty::new(|_, _| Vec::new());
    let session = Session::start(executor.clone(), Some(tokenizer())).unwrap();
    let spec = RequestSpec { logits_post_processor: Some(hook), ..RequestSpec::new(vec![5], 50) };
    let (sender, receiver) = channel();
    let destination = Destination::Callback(Box::new(move |output: Output| {
        sender.send(output.response.is_final()).unwrap();
        Ok(())
    }));
    let request = Request::new(spec, LIMITS, 1 << 20).unwrap();
    let id = session.submit(Submission { request, destination, ..submission(1, &[]) }).unwrap();
    let step = std::thread::spawn({
        let executor = executor.clone();
        move || called(&executor, &AtomicUsize::new(0), 0)
    });
    has_begun.recv().unwrap();
    executor.state.lock().unwrap().responses.push(tokens(id, 0, "one two", Some(true)));
    executor.ready.notify_all();
    assert!(receiver.recv_timeout(Duration::from_millis(50)).is_err(), "the final output came in the middle of a call");
    ends.send(()).unwrap();
    step.join().unwrap();
    assert!(receiver.recv().unwrap());
}
