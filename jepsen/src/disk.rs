//! An ext4 file system of its own, in a sparse file behind a loop device: a disk that can be filled, or lose its power, alone.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

/// What the file system itself may need for a large file.
const SLACK_BYTES: u64 = 2 << 20;

/// A mounted file system. Dropping it takes the mount away; the image is the caller's to remove.
#[derive(Debug)]
pub struct LoopDisk {
    image: PathBuf,
    mount_point: PathBuf,
}

impl LoopDisk {
    /// Makes an image of `bytes` and mounts it at a folder, which is made.
    ///
    /// # Errors
    /// Why that can't be done here: no root, no loop devices, or a failing `mkfs.ext4` or `mount`.
    pub fn create(image: PathBuf, mount_point: PathBuf, bytes: u64) -> anyhow::Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "it needs root");
        ensure!(Path::new("/dev/loop-control").exists(), "there are no loop devices");
        std::fs::create_dir_all(&mount_point).with_context(|| format!("make {}", mount_point.display()))?;
        let file = File::create(&image).with_context(|| format!("make {}", image.display()))?;
        file.set_len(bytes).with_context(|| format!("size {}", image.display()))?;
        ensure!(
            command("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), "-m0".as_ref(), &image]),
            "an ext4 image can't be made"
        );
        let disk = Self { image, mount_point };
        ensure!(disk.mount(), "an ext4 image can't be mounted");
        Ok(disk)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    /// Mounts it; whether that worked.
    #[must_use]
    pub fn mount(&self) -> bool {
        command("mount", &["-o".as_ref(), "loop".as_ref(), &self.image, &self.mount_point])
    }

    /// Takes the mount away, if nobody uses it; whether that worked.
    #[must_use]
    pub fn unmount(&self) -> bool {
        command("umount", &[&self.mount_point])
    }

    /// Fills it with a file until about `free` bytes are left, to the last byte where that is 0, and says where that file is.
    ///
    /// # Errors
    /// Where it can't be written.
    pub fn fill(&self, free: u64) -> anyhow::Result<PathBuf> {
        let ballast = self.mount_point.join("ballast");
        let mut file = File::create(&ballast)?;
        let stat = rustix::fs::statvfs(&self.mount_point)?;
        let bytes = (stat.f_bavail * stat.f_frsize).saturating_sub(free.max(SLACK_BYTES));
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes)?;
        if free == 0 {
            file.seek(SeekFrom::End(0))?;
            while file.write_all(&[0; 4096]).is_ok() {}
        }
        // A full disk may refuse this too; then the system writes back what it has.
        if let Err(error) = file.sync_all() {
            eprintln!("the ballast is not synced: {error}");
        }
        Ok(ballast)
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        if !command("umount", &["-l".as_ref(), &self.mount_point]) {
            eprintln!("{} could not be unmounted", self.mount_point.display());
        }
    }
}

fn command(name: &str, arguments: &[&Path]) -> bool {
    let status = Command::new(name).args(arguments).stderr(Stdio::null()).stdout(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
