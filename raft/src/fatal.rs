//! The one reason for which this node stops.
//!
//! Three parts can fail for good: the log, the tables, and applying; openraft itself stops when one of them tells it. The
//! first reason wins and stays: what follows are consequences.

use std::error::Error;
use std::sync::Arc;

use tokio::sync::watch;

/// An error with all its causes, in one line. Causes that their parent's text ends with already are not repeated.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = cause.source();
    }
    text
}

/// Notes `reason` unless there is one.
pub(crate) fn set(fatal: &watch::Sender<Option<Arc<str>>>, reason: impl FnOnce() -> String) {
    fatal.send_if_modified(|known| {
        let is_first = known.is_none();
        if is_first {
            *known = Some(reason().into());
        }
        is_first
    });
}

/// Waits for a part's error and notes it. Ends when the part is gone.
pub(crate) async fn follow<E: Error>(
    mut part: watch::Receiver<Option<Arc<E>>>,
    name: &'static str,
    fatal: watch::Sender<Option<Arc<str>>>,
) {
    // An error means that the part was dropped: it can't fail any more.
    if let Ok(failed) = part.wait_for(Option::is_some).await
        && let Some(error) = failed.as_ref()
    {
        set(&fatal, || format!("the {name} failed: {}", chain(error.as_ref())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the disk burns")]
    struct Cause;

    #[derive(Debug, thiserror::Error)]
    enum Failure {
        #[error("writing the log")]
        Silent(#[source] Cause),
        #[error("writing the log: {0}")]
        Telling(#[source] Cause),
    }

    #[test]
    fn a_chain_tells_each_cause_once() {
        assert_eq!(chain(&Failure::Silent(Cause)), "writing the log: the disk burns");
        assert_eq!(chain(&Failure::Telling(Cause)), "writing the log: the disk burns");
    }

    #[tokio::test]
    async fn the_first_reason_stays() {
        let (part, failed) = watch::channel(None);
        let (fatal, reason) = watch::channel(None);
        part.send_replace(Some(Arc::new(Failure::Silent(Cause))));
        follow(failed, "log", fatal.clone()).await;
        set(&fatal, || "a consequence".to_owned());
        assert_eq!(reason.borrow().as_deref(), Some("the log failed: writing the log: the disk burns"));
    }

    #[tokio::test]
    async fn a_part_that_ends_well_is_no_failure() {
        let (part, failed) = watch::channel(None::<Arc<Failure>>);
        let (fatal, reason) = watch::channel(None);
        drop(part);
        follow(failed, "log", fatal).await;
        assert_eq!(*reason.borrow(), None);
    }
}
