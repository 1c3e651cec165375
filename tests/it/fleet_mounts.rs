//! Hosts of a fleet that see other files at the same paths.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::time::SystemTime;

use pollster::block_on;
use ringlift::bulk::{IngestEvent, JobStateName, JobStore, OwnerId};

use crate::fleet_hosts::{FleetHost, FleetWorker, NatsServer, open_queue};
use crate::support::{Scheme, TestServer};

#[test]
fn a_host_whose_share_is_empty_or_another_one_leaves_the_jobs_to_the_other_hosts() {
    let Some(nats) = NatsServer::start() else { return };
    let (server, folder) = (TestServer::new(Scheme::Http), tempfile::tempdir().unwrap());
    let (share, away) = (folder.path().join("share"), folder.path().join("away"));
    for folder in [&share, &away] {
        fs::create_dir(folder).unwrap();
    }
    let [missing, other] = ["missing.mp4", "other.mp4"].map(|name| share.join(name));
    for film in [&missing, &other] {
        fs::write(film, vec![7; 1 << 20]).unwrap();
    }
    FleetHost::new(&server, nats.url()).submit(&share).done();
    let client = server.client().build().unwrap();
    let start = |host: &str, waits: bool| {
        FleetWorker::start(open_queue(&nats.url()), &client, 1, |options| {
            (options.owner, options.waits_for_attempts) = (OwnerId::new(host, 1, 1), waits);
        })
    };
    let submitted = other.metadata().unwrap().modified().unwrap();
    fs::rename(&missing, away.join("missing.mp4")).unwrap();
    File::options().write(true).open(&other).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let unmounted = start("unmounted", true);
    let mut declined = BTreeMap::new();
    unmounted.until(|event| {
        if let IngestEvent::Deferred { failure, delay, .. } = event {
            declined.insert(failure.kind.clone(), delay.as_secs());
        }
        assert!(!matches!(event, IngestEvent::Failed { .. }), "{event:?}");
        (declined.len() == 2).then_some(())
    });
    let expected = [("no_such_file", 60), ("source_changed", 60)];
    assert_eq!(declined, expected.map(|(kind, delay)| (kind.to_owned(), delay)).into());
    fs::rename(away.join("missing.mp4"), &missing).unwrap();
    File::options().write(true).open(&other).unwrap().set_modified(submitted).unwrap();
    // Ends if each job waits for an attempt: this host has no wait.
    let mounted = start("mounted", false);
    for _ in 0..2 {
        mounted.until(|event| {
            assert!(!matches!(event, IngestEvent::Ended(_)), "{event:?}");
            matches!(event, IngestEvent::Done { .. }).then_some(())
        });
    }
    unmounted.until(|event| matches!(event, IngestEvent::Ended(_)).then_some(()));
    let counts = block_on(open_queue(&nats.url()).count()).unwrap();
    let states: Vec<_> = counts.iter().map(|count| (count.state, count.jobs)).collect();
    assert_eq!(states, [(JobStateName::Done, 2)]);
    server.assert_created(2);
}
