//! The index against the plain list of jobs that it stands for.

use proptest::prelude::*;

use super::*;

const LEASE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
enum Message {
    Put {
        key: u8,
        state: JobStateName,
        due: u64,
        priority: i32,
        sort_key: Vec<u8>,
        size: u64,
    },
    Remove {
        key: u8,
    },
    /// Reads the next job at this time, which moves jobs between the sets.
    Ask {
        now: u64,
    },
}

fn message() -> impl Strategy<Value = Message> {
    let state = proptest::sample::select(&JobStateName::ALL[..]);
    let sort_key = proptest::collection::vec(any::<u8>(), 0..2);
    prop_oneof![
        6 => (0..6_u8, state, 0..3_000_u64, -1..2_i32, sort_key, 0..50_u64).prop_map(
            |(key, state, due, priority, sort_key, size)| Message::Put { key, state, due, priority, sort_key, size }
        ),
        1 => (0..6_u8).prop_map(|key| Message::Remove { key }),
        2 => (0..3_000_u64).prop_map(|now| Message::Ask { now }),
    ]
}

fn pool() -> Pool {
    Pool::new("films").unwrap()
}

/// Returns the job that a store with all records at hand would choose.
fn expected(model: &BTreeMap<u64, (u8, Projection)>, now: UnixMillis, asked: bool) -> Option<u64> {
    let running = model.iter().filter(|(_, (_, job))| job.state == JobStateName::Running);
    let mut run_out: Vec<_> = running
        .filter(|(_, (_, job))| job.due.distance(now) >= LEASE)
        .map(|(n, (_, job))| (job.due, *n))
        .collect();
    run_out.sort_unstable();
    if asked && let Some(&(_, number)) = run_out.first() {
        return Some(number);
    }
    let is_ready = |job: &Projection| {
        job.state == JobStateName::Queued && (job.due <= now || job.due > now.plus(LONGEST_DELAY))
    };
    let ready = model.iter().filter(|(_, (_, job))| is_ready(job));
    ready
        .min_by_key(|(n, (_, job))| (std::cmp::Reverse(job.priority), job.sort_key.clone(), **n))
        .map(|(n, _)| *n)
}

proptest! {
    #[test]
    fn the_index_chooses_and_counts_as_the_whole_list_would(
        messages in proptest::collection::vec(message(), 0..60),
    ) {
        let (mut index, mut model, mut revision) = (Index::default(), BTreeMap::new(), 0);
        let (mut latest, mut has_future) = (0, false);
        for message in messages {
            revision += 1;
            match message {
                Message::Put { key, state, due, priority, sort_key, size } => {
                    let before = model.iter().find(|(_, (k, _))| *k == key).map(|(n, _)| *n);
                    let due = UnixMillis::new(due * 1000);
                    let job = Projection {
                        number: before.unwrap_or(0), state, pool: pool(), size, due, priority, sort_key,
                    };
                    index.put(&key.to_string(), revision, job.clone());
                    model.insert(before.unwrap_or(revision), (key, job));
                }
                Message::Remove { key } => {
                    index.remove(&key.to_string(), revision);
                    model.retain(|_, (k, _)| *k != key);
                }
                // The clock of the server goes on: a job that became ready stays ready.
                Message::Ask { now } => {
                    latest = now.max(latest);
                    let now = UnixMillis::new(latest * 1000);
                    let found = index.next_due(&pool(), now, LEASE, 0).map(|place| place.number);
                    let wanted = expected(&model, now, true);
                    // Among jobs whose lease has run out any one will do.
                    let any_due = |n: u64| {
                        let (_, job) = &model[&n];
                        job.state == JobStateName::Running && job.due.distance(now) >= LEASE
                    };
                    let is_right = found == wanted || (wanted.is_some_and(any_due) && found.is_some_and(any_due));
                    // A time beyond every rule makes a job ready for good. The claim looks at the record again.
                    has_future |= model.values().any(|(_, job)| job.due > now.plus(LONGEST_DELAY));
                    prop_assert!(is_right || has_future, "{found:?} for {wanted:?}");
                }
            }
            for state in JobStateName::ALL {
                let of_state: Vec<_> =
                    model.values().filter(|(_, job)| job.state == state).map(|(_, job)| job.size).collect();
                let counted = index.counts().into_iter().find(|count| count.state == state);
                let counted = counted.map_or((0, 0), |count| (count.jobs, count.bytes));
                prop_assert_eq!(counted, (of_state.len() as u64, of_state.iter().sum()));
            }
            let numbers: Vec<_> = index.jobs(0, None, None).map(|place| place.number).collect();
            prop_assert_eq!(numbers, model.keys().copied().collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_job_that_cannot_be_read_is_counted_and_never_chosen() {
    let mut index = Index::default();
    let job = |number, state| Projection {
        number,
        state,
        pool: pool(),
        size: 5,
        due: UnixMillis::default(),
        priority: 0,
        sort_key: Vec::new(),
    };
    index.put("a", 1, job(0, JobStateName::Queued));
    index.exclude(1);
    assert_eq!(index.next_due(&pool(), UnixMillis::new(1), LEASE, 0), None);
    assert_eq!(index.counts()[0].jobs, 1);
    index.remove("a", 2);
    assert!(index.counts().is_empty());
}

#[test]
fn a_worker_passes_over_jobs_of_the_same_priority_only() {
    let mut index = Index::default();
    for (revision, priority) in [(1, 5), (2, 5), (3, 1)] {
        let job = Projection {
            number: 0,
            state: JobStateName::Queued,
            pool: pool(),
            size: 5,
            due: UnixMillis::default(),
            priority,
            sort_key: Vec::new(),
        };
        index.put(&revision.to_string(), revision, job);
    }
    let chosen =
        [0, 1, 2, 60].map(|skip| index.next_due(&pool(), UnixMillis::new(1), LEASE, skip).unwrap().number);
    assert_eq!(chosen, [1, 2, 2, 2]);
}
