//! A machine in qemu that runs a script on another kernel and is watched meanwhile.
//!
//! Its root is the host's, read-only (9p), with memory over what programs write to; the initial file
//! system has only what it takes to mount that. The script's output comes by a serial port of its
//! own, so that what the kernel says is not between.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};

use crate::{interrupt, kernel_package::Kernel, provision, workspace};

/// What the guest says first.
const UP: &str = "guest: up";
/// The last line of a script that ran to its end.
const END: &str = "guest: the script has ended";
/// It takes five seconds.
const BOOT: Duration = Duration::from_secs(90);
/// A test says nothing until it has ended, and the longest of them take minutes there.
const SILENCE: Duration = Duration::from_secs(900);
/// All of it together.
const MOST: Duration = Duration::from_secs(3600);
/// Of the kernel's own messages, when the guest fails.
const TAIL: usize = 40;

/// Runs the script with `/bin/sh`, handing on each line that it prints.
///
/// # Errors
/// Where the guest panics, hangs or ends before the script does, with the end of its console.
pub fn run(kernel: &Kernel, script: &str, on_line: impl FnMut(&str)) -> Result<()> {
    let image = kernel.folder().join("initrd");
    let console = kernel.folder().join("console.log");
    fs::write(&image, initial_files(kernel, script)?)?;
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048"]);
    qemu.args(["-display", "none", "-vga", "none", "-monitor", "none", "-net", "none"]);
    qemu.arg("-serial").arg(format!("file:{}", console.display()));
    qemu.args(["-serial", "stdio", "-no-reboot"]);
    qemu.arg("-kernel").arg(kernel.program()).arg("-initrd").arg(&image);
    // What is wrong with the kernel ends the machine at once. Guarding it against its own programs
    // would empty qemu's translation cache with every system call.
    qemu.args(["-append", "console=ttyS0 panic=-1 oops=panic mitigations=off"]);
    qemu.args(["-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap"]);
    qemu.args(["-device", "virtio-9p-pci,fsdev=root,mount_tag=root"]);
    let mut machine = Machine::start(&mut qemu)?;
    if !machine.comes_up(BOOT) {
        // Seen with two CPUs, before the kernel has run anything of ours.
        println!("the guest has not booted in {} s; once more", BOOT.as_secs());
        drop(machine);
        machine = Machine::start(&mut qemu)?;
    }
    machine.watch((SILENCE, MOST), on_line).map_err(|why| {
        let tail = tail_of(&console);
        anyhow!("{why:#}\nthe end of its console, {}:\n{tail}", console.display())
    })
}

/// Switched off when dropped.
struct Machine {
    qemu: Child,
    lines: Receiver<String>,
}

impl Machine {
    fn start(qemu: &mut Command) -> Result<Self> {
        qemu.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut qemu = qemu.spawn().context("cannot run qemu-system-x86_64")?;
        let output = qemu.stdout.take().context("qemu has no standard output")?;
        let (send, lines) = sync_channel(64);
        std::thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { qemu, lines })
    }

    /// False if it has said nothing in that time. One that went down is for [`Machine::watch`].
    fn comes_up(&self, within: Duration) -> bool {
        self.lines.recv_timeout(within) != Err(RecvTimeoutError::Timeout)
    }

    fn watch(
        &self,
        (silence, most): (Duration, Duration),
        mut on_line: impl FnMut(&str),
    ) -> Result<()> {
        let started = Instant::now();
        let mut last = started;
        loop {
            match self.lines.recv_timeout(silence.min(Duration::from_secs(1))) {
                Ok(line) if line == END => return Ok(()),
                Ok(line) => {
                    if line != UP {
                        on_line(&line);
                    }
                    last = Instant::now();
                }
                Err(RecvTimeoutError::Timeout) => interrupt::check()?,
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("the guest went down before its script had ended");
                }
            }
            if last.elapsed() >= silence {
                bail!("the guest hangs: it has said nothing for {} s", silence.as_secs());
            }
            if started.elapsed() >= most {
                bail!("the guest was not done after {} s", most.as_secs());
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

fn tail_of(console: &Path) -> String {
    let said = fs::read(console).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().map(str::trim_end).collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

/// Mounts the root, and over it what the programs may write to. A tree below one of those places is
/// brought back.
fn init() -> String {
    let trees = [workspace::root().to_owned(), workspace::target()];
    let trees = trees.map(|tree| format!("'{}'", tree.display())).join(" ");
    format!(
        "#!/bin/busybox sh\n\
         b=/bin/busybox\n\
         $b mount -t proc proc /proc\n\
         $b mount -t devtmpfs dev /dev\n\
         $b stty -F /dev/ttyS1 raw -echo\n\
         echo '{UP}' > /dev/ttyS1\n\
         for module in /modules/*.ko; do $b insmod $module || echo \"$module cannot be loaded\"; done\n\
         $b mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,ro,cache=loose root /host\n\
         $b mount -o bind /host /root\n\
         $b mount -t proc proc /root/proc\n\
         $b mount -t sysfs sys /root/sys\n\
         $b mount -t devtmpfs dev /root/dev\n\
         $b mount -t tmpfs tmp /root/tmp\n\
         $b mount -t tmpfs run /root/run\n\
         $b mount -t cgroup2 none /root/sys/fs/cgroup\n\
         for tree in {trees}; do\n\
         $b mkdir -p \"/root$tree\"\n\
         $b mount -o bind \"/host$tree\" \"/root$tree\"\n\
         done\n\
         $b ip link set lo up\n\
         $b cp /script /root/run/script\n\
         $b chroot /root /bin/sh /run/script > /dev/ttyS1 2>&1\n\
         echo '{END}' > /dev/ttyS1\n\
         $b poweroff -f\n"
    )
}

/// A cpio archive (`newc`, Documentation/driver-api/early-userspace/buffer-format.rst).
fn initial_files(kernel: &Kernel, script: &str) -> Result<Vec<u8>> {
    const FOLDER: u32 = 0o040_755;
    const PROGRAM: u32 = 0o100_755;
    let busybox = provision::find("busybox").context("no busybox")?;
    let mut archive = Vec::new();
    for folder in ["bin", "modules", "proc", "dev", "host", "root"] {
        put(&mut archive, folder, FOLDER, b"")?;
    }
    put(&mut archive, "bin/busybox", PROGRAM, &fs::read(busybox)?)?;
    put(&mut archive, "init", PROGRAM, init().as_bytes())?;
    put(&mut archive, "script", PROGRAM, script.as_bytes())?;
    for file in kernel.modules()? {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        put(&mut archive, &format!("modules/{name}"), PROGRAM, &fs::read(&file)?)?;
    }
    put(&mut archive, "TRAILER!!!", 0, b"")?;
    Ok(archive)
}

fn put(archive: &mut Vec<u8>, name: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    let pad = |archive: &mut Vec<u8>| archive.resize(archive.len().next_multiple_of(4), 0);
    // Magic, inode, mode, uid, gid, links, mtime, size, device twice, name's size, checksum.
    let (inode, links, size, name_size) = (archive.len(), 1, bytes.len(), name.len() + 1);
    write!(archive, "070701{inode:08x}{mode:08x}{0:08x}{0:08x}{links:08x}{0:08x}", 0)?;
    write!(archive, "{size:08x}{0:08x}{0:08x}{0:08x}{0:08x}{name_size:08x}{0:08x}{name}\0", 0)?;
    pad(archive);
    archive.extend_from_slice(bytes);
    pad(archive);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any program can stand for the machine.
    fn machine(script: &str) -> Machine {
        Machine::start(Command::new("sh").args(["-c", script])).unwrap()
    }

    #[test]
    fn an_archive_has_aligned_members() {
        let mut archive = Vec::new();
        put(&mut archive, "init", 0o100_755, b"abc").unwrap();
        assert_eq!(archive.len() % 4, 0);
        assert!(archive.starts_with(b"070701"));
        assert_eq!(&archive[110..115], b"init\0");
        assert_eq!(&archive[116..120], b"abc\0");
    }

    #[test]
    fn a_guest_must_get_to_the_end() {
        let bounds = (Duration::from_secs(5), Duration::from_secs(5));
        let mut heard = Vec::new();
        let whole = machine(&format!("echo '{UP}'; echo a; echo b; echo '{END}'; echo c"));
        whole.watch(bounds, |line| heard.push(line.to_owned())).unwrap();
        assert_eq!(heard, ["a", "b"]);
        let error = machine("echo a").watch(bounds, |_| ()).unwrap_err();
        assert!(error.to_string().contains("went down"), "{error}");
    }

    #[test]
    fn a_guest_that_hangs_is_given_up() {
        let short = Duration::from_millis(50);
        let hanging = machine("exec sleep 60");
        assert!(!hanging.comes_up(short));
        let error = hanging.watch((short, Duration::MAX), |_| ()).unwrap_err();
        assert!(error.to_string().contains("hangs"), "{error}");
        let endless = machine("while :; do echo a; sleep 0.01; done");
        assert!(endless.comes_up(Duration::from_secs(9)));
        let error = endless.watch((Duration::from_secs(9), short), |_| ()).unwrap_err();
        assert!(error.to_string().contains("not done"), "{error}");
    }
}
