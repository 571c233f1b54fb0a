//! Response queues, and the descriptors that tell when responses wait.

use std::collections::BTreeSet;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;
use std::time::{Duration, Instant};

use trtllm::c_api::engine::trtllm_close_engine;
use trtllm::c_api::queue::{
    trtllm_await_queue, trtllm_free_queue, trtllm_new_queue, trtllm_queue, trtllm_queue_fd, trtllm_response_fd,
};
use trtllm::c_api::request::trtllm_request;
use trtllm::c_api::request_queue::trtllm_enqueue;
use trtllm::c_api::response::{
    TRTLLM_FINISH_REASON_CANCELLED, TRTLLM_WAIT_FOREVER, trtllm_free_responses, trtllm_response, trtllm_responses,
    trtllm_view_responses,
};
use trtllm::c_api::status::{
    TRTLLM_STATUS_INVALID_ARGUMENT, TRTLLM_STATUS_INVALID_HANDLE, TRTLLM_STATUS_OK, TRTLLM_STATUS_SHUT_DOWN,
    trtllm_status,
};
use trtllm::c_api::strings::trtllm_ids;

use crate::support::{Host, asleep_in, is, last_error, ok, request};

const PROMPT: [u32; 3] = [1, 2, 3];

fn of_prompt(queue: *mut trtllm_queue) -> trtllm_request {
    let mut request = request();
    request.token_ids = trtllm_ids { data: PROMPT.as_ptr(), len: PROMPT.len() };
    request.max_new_tokens = 4;
    request.ignore_eos = true.into();
    request.queue = queue;
    request
}

fn new_queue(host: &Host) -> *mut trtllm_queue {
    let mut queue = ptr::null_mut();
    // SAFETY: the place is valid.
    ok(unsafe { trtllm_new_queue(host.engine, &mut queue) });
    queue
}

/// Takes what waits in a queue, or waits for it.
fn take(queue: *mut trtllm_queue, timeout_ms: u64, mut see: impl FnMut(&trtllm_response)) -> trtllm_status {
    let mut list: *mut trtllm_responses = ptr::null_mut();
    // SAFETY: the place is valid.
    let status = unsafe { trtllm_await_queue(queue, timeout_ms, &mut list) };
    if status == TRTLLM_STATUS_OK {
        let (mut array, mut count) = (ptr::null(), 0);
        // SAFETY: the places are valid; what they then say is so until the list is freed.
        unsafe {
            ok(trtllm_view_responses(list, &mut array, &mut count));
            std::slice::from_raw_parts(array, count).iter().for_each(|&response| see(&*response));
        }
        ok(trtllm_free_responses(list));
    }
    status
}

fn descriptor(make: impl FnOnce(*mut i32) -> trtllm_status) -> OwnedFd {
    let mut fd = -1;
    ok(make(&mut fd));
    // SAFETY: the library gave it away.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn readable(descriptor: &OwnedFd, timeout: Duration) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
    poll(&mut [PollFd::new(descriptor, PollFlags::IN)], Some(&timeout)).unwrap() == 1
}

const LONG: Duration = Duration::from_secs(20);

#[test]
fn modules_that_share_an_engine_get_their_own_responses() {
    let host = Host::parity("mistral-gqa");
    let queues = [new_queue(&host), new_queue(&host), ptr::null_mut()];
    let mut asked = [BTreeSet::new(), BTreeSet::new(), BTreeSet::new()];
    for number in 0..60 {
        asked[number % 3].insert(host.enqueue(&of_prompt(queues[number % 3])));
    }
    let mut found = [BTreeSet::new(), BTreeSet::new(), BTreeSet::new()];
    host.await_all(20, |response| {
        found[2].insert(response.request_id);
    });
    for module in 0..2 {
        let mut ended = 0;
        while ended < 20 {
            ok(take(queues[module], TRTLLM_WAIT_FOREVER, |response| {
                ended += usize::from(is(response.is_final));
                found[module].insert(response.request_id);
            }));
        }
    }
    assert_eq!(found, asked);
    queues[..2].iter().for_each(|&queue| ok(trtllm_free_queue(queue)));
}

#[test]
fn a_descriptor_tells_of_responses_and_of_the_end() {
    let mut host = Host::parity("mistral-gqa");
    let queue = new_queue(&host);
    // SAFETY: the places are valid.
    let shared = descriptor(|fd| unsafe { trtllm_response_fd(host.engine, fd) });
    // SAFETY: as above.
    let own = descriptor(|fd| unsafe { trtllm_queue_fd(queue, fd) });
    assert!(!readable(&own, Duration::ZERO) && !readable(&shared, Duration::ZERO));
    host.enqueue(&of_prompt(queue));
    let mut is_final = false;
    while !is_final {
        assert!(readable(&own, LONG), "there is more to come");
        ok(take(queue, 0, |response| is_final = is(response.is_final)));
    }
    assert!(!readable(&own, Duration::from_millis(20)) && !readable(&shared, Duration::ZERO));
    host.enqueue(&of_prompt(ptr::null_mut()));
    assert!(readable(&shared, LONG) && !readable(&own, Duration::ZERO));

    // The queue outlives its engine; the last responses are there to be taken.
    host.enqueue(&of_prompt(queue));
    ok(trtllm_close_engine(std::mem::replace(&mut host.engine, ptr::null_mut())));
    assert!(readable(&own, Duration::ZERO) && readable(&shared, Duration::ZERO));
    let mut ended = 0;
    ok(take(queue, 0, |response| ended += usize::from(is(response.is_final))));
    assert_eq!(ended, 1);
    assert_eq!(take(queue, TRTLLM_WAIT_FOREVER, |_| ()), TRTLLM_STATUS_SHUT_DOWN);
    assert!(readable(&own, Duration::ZERO));
    ok(trtllm_free_queue(queue));
    assert!(readable(&own, Duration::ZERO), "the descriptor is the host's");
    assert_eq!(take(queue, 0, |_| ()), TRTLLM_STATUS_INVALID_HANDLE);
}

#[test]
fn a_queue_that_is_freed_lets_go_of_everybody() {
    let host = Host::parity("mistral-gqa");
    let queue = new_queue(&host);
    let address = queue.addr();
    let waiting = asleep_in(move || take(ptr::without_provenance_mut(address), TRTLLM_WAIT_FOREVER, |_| ()));
    ok(trtllm_free_queue(queue));
    assert_eq!(waiting.join().unwrap(), TRTLLM_STATUS_SHUT_DOWN);
    // Its requests do not keep the engine busy.
    let queue = new_queue(&host);
    let mut long = of_prompt(queue);
    long.max_new_tokens = usize::MAX;
    for _ in 0..4 {
        host.enqueue(&long);
    }
    ok(trtllm_free_queue(queue));
    let until = Instant::now() + LONG;
    loop {
        let mut plain = of_prompt(ptr::null_mut());
        plain.max_new_tokens = 1;
        host.enqueue(&plain);
        host.await_all(1, |response| assert_ne!(response.finish_reason, TRTLLM_FINISH_REASON_CANCELLED));
        if in_flight(&host) == 1 {
            break;
        }
        assert!(Instant::now() < until, "requests of a queue that was freed run on");
    }
}

/// Sequences of the last iteration.
fn in_flight(host: &Host) -> usize {
    use trtllm::c_api::stats::{trtllm_free_iteration_stats, trtllm_take_iteration_stats, trtllm_view_iteration_stats};
    let (mut list, mut array, mut count) = (ptr::null_mut(), ptr::null(), 0);
    // SAFETY: the places are valid; what they then say is so until the list is freed.
    unsafe {
        ok(trtllm_take_iteration_stats(host.engine, &mut list));
        ok(trtllm_view_iteration_stats(list, &mut array, &mut count));
        let last =
            std::slice::from_raw_parts(array, count).last().map_or(usize::MAX, |&last| (*last).num_scheduled_requests);
        ok(trtllm_free_iteration_stats(list));
        last
    }
}

#[test]
fn a_request_goes_to_one_place_of_its_own_engine() {
    unsafe extern "C" fn ignore(_: *mut std::ffi::c_void, _: *const trtllm_response) {}
    let (host, other) = (Host::parity("mistral-gqa"), Host::parity("mistral-gqa"));
    let refused = |request: &trtllm_request, expected: &str| {
        let mut id = 0;
        // SAFETY: the request and the place are valid.
        let status = unsafe { trtllm_enqueue(host.engine, request, &mut id) };
        assert_eq!(status, TRTLLM_STATUS_INVALID_ARGUMENT);
        assert!(last_error().contains(expected), "{}", last_error());
    };
    let (own, foreign) = (new_queue(&host), new_queue(&other));
    refused(&of_prompt(foreign), "another engine");
    let mut both = of_prompt(own);
    both.on_response = Some(ignore);
    refused(&both, "both on_response and queue");
    ok(trtllm_free_queue(own));
    ok(trtllm_free_queue(foreign));
}
