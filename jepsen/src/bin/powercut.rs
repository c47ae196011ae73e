//! Cuts the power of a mounted file system: what was not synced is gone at the next mount.
//!
//! ```text
//! powercut MOUNTPOINT SEED [FILE ...]
//! ```
//!
//! First random pages of the files are written back, which leaves a write that was under way torn and out of order, as
//! a disk cache does. Then the file system is shut down without flushing its journal (`FS_IOC_SHUTDOWN` with
//! `NOLOGFLUSH`; ext4 and XFS know it): from then on every operation on it fails, until it is mounted again. Needs root;
//! meant for a loop device, never for a file system that anyone needs.
//!
//! Prints the time just before the cut, in nanoseconds since 1970: an fsync that is under way at that moment may return
//! with success although its journal transaction was aborted, so only what was synced before it is safe.
//!
//! This is the one file of the project with `unsafe` in it: two system calls that no safe wrapper offers.
#![expect(unsafe_code, reason = "sync_file_range and one ioctl have no safe wrapper; both are audited here")]

use std::{fs::File, os::fd::AsRawFd, path::Path, time::SystemTime};

use anyhow::{Context, bail, ensure};
use rustix::ioctl::{Setter, ioctl, opcode};

/// `FS_IOC_SHUTDOWN`, which is `_IOR('X', 125, __u32)`.
const SHUTDOWN: rustix::ioctl::Opcode = opcode::read::<u32>(b'X', 125);
/// Neither data nor journal is flushed first.
const NO_LOG_FLUSH: u32 = 2;
/// The unit in which a page cache writes back.
const PAGE_BYTES: u64 = 4096;
/// Pages looked at per file: more than a WAL file of a test has.
const PAGES_MAX: u64 = 16_384;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(mount), Some(seed)) = (arguments.next(), arguments.next()) else {
        bail!("usage: powercut MOUNTPOINT SEED [FILE ...]");
    };
    let mut random: u64 = seed.to_str().and_then(|seed| seed.parse().ok()).context("SEED is not a number")?;
    let mount = Path::new(&mount);
    let folder = File::open(mount).with_context(|| format!("open {}", mount.display()))?;
    for path in arguments {
        let path = Path::new(&path);
        // A file may be renamed or removed by the process that is being cut off.
        if let Ok(file) = File::open(path) {
            tear(&file, &mut random).with_context(|| format!("write back parts of {}", path.display()))?;
        }
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    shut_down(&folder).with_context(|| format!("shut {} down", mount.display()))?;
    println!("{}", now.as_nanos());
    Ok(())
}

/// Writes every other page of a file back, by chance, so that those survive and the others don't.
fn tear(file: &File, random: &mut u64) -> anyhow::Result<()> {
    let pages = file.metadata()?.len().div_ceil(PAGE_BYTES);
    for page in 0..pages.min(PAGES_MAX) {
        if next(random).is_multiple_of(2) {
            write_back(file, page * PAGE_BYTES, PAGE_BYTES)?;
        }
    }
    Ok(())
}

fn write_back(file: &File, offset: u64, length: u64) -> anyhow::Result<()> {
    let (offset, length) = (i64::try_from(offset)?, i64::try_from(length)?);
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: the descriptor is open for as long as `file` lives, the other arguments are plain numbers, and the call
    // touches no memory of this process.
    let outcome = unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, flags) };
    ensure!(outcome == 0, std::io::Error::last_os_error());
    Ok(())
}

fn shut_down(folder: &File) -> anyhow::Result<()> {
    // SAFETY: the kernel reads one u32 through the pointer that `Setter` passes, and `Setter` keeps a u32 there.
    unsafe { ioctl(folder, Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH)) }?;
    Ok(())
}

/// xorshift64: any sequence will do, as long as the seed repeats it.
fn next(state: &mut u64) -> u64 {
    *state = (*state).max(1);
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}
