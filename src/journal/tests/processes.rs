//! Other users, killed processes and full disks.

use super::*;

/// What root leaves behind, as the user finds it.
#[test]
fn lock_files_of_another_user_are_skipped_and_named_if_their_session_is_claimed() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: only root leaves files of root");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    let owned = |path: &Path| std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    owned(folder.path());
    left_behind(&path, [1]);
    for made in ["j", "j.locks", "j.locks/0"] {
        let made = folder.path().join(made);
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&fs::metadata(&made).unwrap()), NOBODY, "{made:?}");
    }
    // As earlier versions left them.
    for number in ["0", "1", "2"] {
        let lock = folder.path().join("j.locks").join(number);
        fs::write(&lock, "1").unwrap();
        std::os::unix::fs::chown(&lock, Some(0), Some(0)).unwrap();
        fs::set_permissions(&lock, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let binary = File::open(std::env::current_exe().unwrap()).unwrap();
    let as_user = |inode: &str| {
        let mut command = open_binary(&binary);
        command.uid(NOBODY).gid(NOBODY).env("RINGLIFT_TEST_INODE", inode);
        let (child, said) = run_child(command, &path, 1);
        end(child);
        said
    };
    assert_eq!(as_user("7"), "ready");
    let said = as_user("");
    assert!(said.starts_with("OutOfReach") && said.contains("j.locks/0"), "{said}");
}

const NOBODY: u32 = 65_534;

/// What a child of these tests does: works on the journal that its environment names, then waits.
#[test]
#[ignore = "is run by the tests below, in a process of its own"]
fn child() {
    let path = std::env::var_os("RINGLIFT_TEST_JOURNAL").expect("a path");
    let chunks: u32 = std::env::var("RINGLIFT_TEST_CHUNKS").unwrap().parse().unwrap();
    let worked = || -> Result<(Journal, ClaimedEntry), JournalError> {
        let mut journal = Journal::open(Path::new(&path))?;
        let key = match std::env::var("RINGLIFT_TEST_INODE").ok().and_then(|inode| inode.parse().ok()) {
            Some(inode) => Key {
                source: EntrySource::File {
                    path: "/other.mp4".into(),
                    identity: SourceIdentity { inode, ..identity() },
                },
                ..key()
            },
            None => key(),
        };
        let mut claimed = match journal.claim(&key, &"a".repeat(5000), NOW)? {
            Claim::Fresh(claimed) => claimed,
            claim => panic!("{claim:?}"),
        };
        journal.record_container(&mut claimed, Some(plan()), "vi1", CreatedBy::ByUs)?;
        for index in 0..chunks {
            journal.record_chunk(&mut claimed, index)?;
        }
        Ok((journal, claimed))
    };
    match worked() {
        Ok(_held) => {
            println!("\nsays ready");
            std::thread::sleep(Duration::from_secs(60));
        }
        Err(error) => println!("\nsays {error:?}"),
    }
}

fn run_child(mut command: Command, path: &Path, chunks: u32) -> (Child, String) {
    let mut child = command
        .args(["--exact", "journal::tests::processes::child", "--ignored", "--nocapture"])
        .env("RINGLIFT_TEST_JOURNAL", path)
        .env("RINGLIFT_TEST_CHUNKS", chunks.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let said = lines.filter_map(|line| line.strip_prefix("says ").map(str::to_owned)).next();
    (child, said.expect("the child says how it went"))
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn this_binary() -> Command {
    Command::new(std::env::current_exe().unwrap())
}

/// Returns a command that runs `binary` by its descriptor: another user may not search the folders above a build
/// below `/root`.
fn open_binary(binary: &File) -> Command {
    Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()))
}

#[test]
fn a_killed_process_gives_back_its_claim_and_loses_no_acknowledgement() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    let (child, said) = run_child(this_binary(), &path, 70);
    assert_eq!(said, "ready");
    let mut journal = Journal::open(&path).unwrap();
    let pid = Some(child.id());
    assert!(matches!(journal.claim(&key(), "", NOW).unwrap(), Claim::Busy { pid: found } if found == pid));
    assert_eq!(journal.entries().unwrap()[0].state, EntryState::Running { pid });
    end(child);
    let (_ticket, saved) = resumed(&mut journal, &key());
    assert_eq!(saved.stored, (0..70).collect::<Vec<_>>());
}

#[test]
fn no_session_begins_if_the_journal_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    left_behind(&path, [3]);
    let binary = File::open(std::env::current_exe().unwrap()).unwrap();
    let refused = |name: &str| {
        let mut command = open_binary(&binary);
        if rustix::process::geteuid().is_root() {
            command.uid(65_534).gid(65_534);
        }
        let (child, said) = run_child(command, &folder.path().join(name), 1);
        end(child);
        assert!(said.starts_with("NotWritable"), "{name}: {said}");
    };
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(&path, 0o444);
    mode(folder.path(), 0o777);
    refused("j");
    mode(&path, 0o666);
    mode(folder.path(), 0o555);
    refused("j");
    refused("new");
    refused("new/j");
    mode(folder.path(), 0o755);
    mode(&path, 0o600);
    assert_eq!(resumed(&mut Journal::open(&path).unwrap(), &key()).1.stored, [3]);
}

/// A limit on the size of files stands in for the end of a disk; the signal that comes with it is ignored.
#[test]
fn a_write_that_does_not_fit_is_an_error_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for kib in [0, 4, 8, 16, 40, 64, 200] {
        let path = folder.path().join(format!("j{kib}"));
        let mut command = Command::new("sh");
        command.args(["-c", &format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", kib * 2)]);
        command.arg(std::env::current_exe().unwrap());
        let (child, said) = run_child(command, &path, 10_000);
        end(child);
        assert!(said.starts_with("Io") || said.starts_with("Full"), "{kib} KiB: {said}");
        match Journal::open(&path).unwrap().claim(&key(), "", NOW).unwrap() {
            Claim::Resume(_, saved) => assert_eq!(saved.container, known("vi1", CreatedBy::ByUs)),
            Claim::Fresh(_) => assert!(kib < 200, "{kib} KiB hold a container"),
            claim => panic!("{claim:?}"),
        }
    }
}

/// The header of a rollback journal from which a database is emptied again.
///
/// <https://www.sqlite.org/fileformat.html#the_rollback_journal>
fn rollback_to_nothing() -> Vec<u8> {
    let (records, nonce, pages_before, sector, page) = (0u32, 7u32, 0u32, 512u32, 4096u32);
    let numbers = [records, nonce, pages_before, sector, page].map(u32::to_be_bytes).concat();
    let mut header = [&[0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7], &*numbers].concat();
    header.resize(512, 0);
    header
}

#[test]
fn a_journal_whose_creation_was_killed_is_created_again() {
    let folder = tempfile::tempdir().unwrap();
    let (made, path) = (folder.path().join("made.db"), folder.path().join("journal.db"));
    let mut half = Connection::open(&made).unwrap();
    format::create(&mut half).unwrap();
    drop(half);
    fs::copy(&made, &path).unwrap();
    fs::write(folder.path().join("journal.db-journal"), rollback_to_nothing()).unwrap();
    let mut journal = Journal::open(&path).unwrap();
    fresh(&mut journal, &key());
    assert_eq!(journal.entries().unwrap().len(), 1);
}
