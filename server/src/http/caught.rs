//! A panic while a request is answered is that request's error.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use crate::error::ApiError;

/// What `answer` gives, or the error of one that panicked. The program's panic hook has told where.
pub async fn caught<T>(answer: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    let mut answer = pin!(answer);
    // What a panic leaves half done is dropped with the future, which is not polled again.
    std::future::poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(context)));
        polled.unwrap_or_else(|_| {
            let message =
                "a fault in the server ended this request; what the server wrote to standard error says where";
            Poll::Ready(Err(ApiError::internal(message)))
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_and_everything_else_passes() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            assert_eq!(caught(async { Ok(5) }).await.unwrap(), 5);
            assert_eq!(
                caught::<()>(async { Err(ApiError::deadline_exceeded()) }).await.unwrap_err().code,
                "deadline_exceeded"
            );
            let faulty = async {
                tokio::task::yield_now().await;
                panic!("as a fault does");
            };
            assert_eq!(caught::<()>(faulty).await.unwrap_err().code, "internal");
        });
    }
}
