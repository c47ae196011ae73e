//! Random bytes from the operating system, and from nowhere else.
//!
//! Deliberately not buffered in the process: a buffer would be copied with a cloned virtual machine, and both copies
//! would seal under the same salt and nonce. The kernel reseeds after such a clone; a buffer does not.

/// The operating system gave no random bytes, so nothing can be sealed.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gave no random bytes: {0}; check that getrandom(2) is allowed to this process and retry")]
pub struct RandomError(getrandom::Error);

/// `N` random bytes by one call of getrandom(2).
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(RandomError)?;
    Ok(bytes)
}
