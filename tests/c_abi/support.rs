//! A host in Rust: thin helpers over the exported functions.

use std::path::Path;
use std::ptr;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;

use trtllm::c_api::engine::{trtllm_close_engine, trtllm_engine, trtllm_engine_config, trtllm_open_engine};
use trtllm::c_api::request::{trtllm_init_request, trtllm_request};
use trtllm::c_api::request_queue::trtllm_enqueue;
use trtllm::c_api::response::{
    TRTLLM_WAIT_FOREVER, trtllm_await_responses, trtllm_free_responses, trtllm_response, trtllm_view_responses,
};
use trtllm::c_api::status::{TRTLLM_STATUS_OK, trtllm_last_error, trtllm_status};
use trtllm::c_api::strings::{trtllm_free_string, trtllm_str, trtllm_string, trtllm_view_string};

use crate::common;

/// A thread with a call that waits. It sleeps there, or has ended, as this returns.
pub(crate) fn asleep_in<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let (sender, receiver) = channel();
    let thread = std::thread::spawn(move || {
        sender.send(std::fs::read_link("/proc/thread-self").unwrap()).unwrap();
        call()
    });
    let stat = Path::new("/proc").join(receiver.recv().unwrap()).join("stat");
    while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") S ")) {
        std::thread::yield_now();
    }
    thread
}

pub(crate) fn text_of(text: &str) -> trtllm_str {
    trtllm_str { data: text.as_ptr().cast(), len: text.len() }
}

/// A view's text, copied.
pub(crate) fn copied(view: trtllm_str) -> String {
    if view.len == 0 {
        return String::new();
    }
    // SAFETY: the library gave the view out, and what it is of has not been freed.
    let bytes = unsafe { std::slice::from_raw_parts(view.data.cast::<u8>(), view.len) };
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub(crate) fn last_error() -> String {
    copied(trtllm_last_error())
}

#[track_caller]
pub(crate) fn ok(status: trtllm_status) {
    assert_eq!(status, TRTLLM_STATUS_OK, "{}", last_error());
}

/// A string of the library, copied and freed.
#[track_caller]
pub(crate) fn taken(string: *mut trtllm_string) -> String {
    let mut view = trtllm_str { data: ptr::null(), len: 0 };
    // SAFETY: the place is valid.
    ok(unsafe { trtllm_view_string(string, &mut view) });
    let text = copied(view);
    ok(trtllm_free_string(string));
    text
}

/// An engine that is closed at the end.
pub(crate) struct Host {
    pub(crate) engine: *mut trtllm_engine,
    pub(crate) built: common::Engine,
}

impl Host {
    pub(crate) fn demo() -> Self {
        Self::new(common::build(&Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-model"), 512))
    }

    pub(crate) fn parity(name: &str) -> Self {
        Self::new(common::build(&common::fixture("parity").join(name), 64))
    }

    pub(crate) fn new(built: common::Engine) -> Self {
        let engine = open(&built.path, ptr::null());
        Self { engine, built }
    }

    pub(crate) fn enqueue(&self, request: &trtllm_request) -> u64 {
        let mut id = u64::MAX;
        // SAFETY: the request and what it points to live through the call.
        ok(unsafe { trtllm_enqueue(self.engine, request, &mut id) });
        id
    }

    /// Waits for responses once and shows each.
    pub(crate) fn await_once(&self, mut see: impl FnMut(&trtllm_response)) {
        let mut list = ptr::null_mut();
        // SAFETY: the place is valid.
        ok(unsafe { trtllm_await_responses(self.engine, TRTLLM_WAIT_FOREVER, &mut list) });
        let (mut array, mut count) = (ptr::null(), 0);
        // SAFETY: the places are valid; what they then say is so until the list is freed.
        unsafe {
            ok(trtllm_view_responses(list, &mut array, &mut count));
            assert!(count > 0);
            std::slice::from_raw_parts(array, count).iter().for_each(|&response| see(&*response));
        }
        ok(trtllm_free_responses(list));
    }

    /// Waits until `requests` have ended, and shows every response.
    pub(crate) fn await_all(&self, requests: usize, mut see: impl FnMut(&trtllm_response)) {
        let mut ended = 0;
        while ended < requests {
            self.await_once(|response| {
                ended += usize::from(is(response.is_final));
                see(response);
            });
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if !self.engine.is_null() {
            ok(trtllm_close_engine(self.engine));
        }
    }
}

/// A flag of a response.
pub(crate) fn is(flag: trtllm::c_api::strings::CBool) -> bool {
    flag == true.into()
}

pub(crate) fn open(path: &Path, config: *const trtllm_engine_config) -> *mut trtllm_engine {
    let mut engine = ptr::null_mut();
    // SAFETY: the path lives through the call, and so does the configuration if there is one.
    ok(unsafe { trtllm_open_engine(text_of(path.to_str().unwrap()), config, &mut engine) });
    engine
}

/// A request with its defaults.
pub(crate) fn request() -> trtllm_request {
    let mut request = std::mem::MaybeUninit::uninit();
    // SAFETY: the place has that size; a success initialises it.
    unsafe {
        ok(trtllm_init_request(request.as_mut_ptr(), size_of::<trtllm_request>()));
        request.assume_init()
    }
}

/// The ids of a response.
pub(crate) fn ids(response: &trtllm_response) -> Vec<u32> {
    if response.token_ids.len == 0 {
        return Vec::new();
    }
    // SAFETY: valid while the response is.
    unsafe { std::slice::from_raw_parts(response.token_ids.data, response.token_ids.len) }.to_vec()
}
