//! The examination of files by a thread of its own: a dead mount holds it in the kernel, and never the executor.

use std::fmt;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// A handle to the thread that examines files.
#[derive(Default)]
pub(super) struct Examiner {
    thread: Mutex<ExaminingThread>,
}

#[derive(Default)]
struct ExaminingThread {
    questions: Option<Sender<Question>>,
    /// The deadlines of questions without an answer. A deadline that is sent gives the question up.
    deadlines: Vec<(Instant, oneshot::Sender<()>)>,
    /// Threads that did not answer in time. Each ends when the kernel returns.
    abandoned: usize,
}

type Question = Box<dyn FnOnce() + Send>;

impl Examiner {
    /// Returns the result of `examine`; `None` if there is none within [`LONGEST_SILENCE`], which [`Examiner::expire`]
    /// decides.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        examine: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (sender, answer) = oneshot::channel();
        let expired = self.send(Box::new(move || drop(sender.send(examine()))))?;
        tokio::select! {
            biased;
            answered = answer => answered.ok(),
            Ok(()) = expired => None,
        }
    }

    /// Gives up the questions whose time is over at `now`, and the thread with them. Called every now and then: a timer for
    /// each question would cost more than its answer.
    pub(super) fn expire(&self, now: Instant) {
        let mut thread = self.lock();
        let (overdue, pending): (Vec<_>, Vec<_>) = std::mem::take(&mut thread.deadlines)
            .into_iter()
            .filter(|(_, question)| !question.is_closed())
            .partition(|(deadline, _)| *deadline <= now);
        thread.deadlines = pending;
        if !overdue.is_empty() {
            // The other questions wait behind the one that hangs, and are given up at their own time.
            (thread.questions, thread.abandoned) = (None, thread.abandoned + 1);
        }
        for (_, question) in overdue {
            // The job may have ended in the meantime.
            let _ = question.send(());
        }
    }

    /// Sends a question to the thread, which is started if there is none. Returns `None` if too many threads hang.
    fn send(&self, question: Question) -> Option<oneshot::Receiver<()>> {
        let mut thread = self.lock();
        if thread.questions.is_none() {
            if thread.abandoned >= MOST_ABANDONED {
                return None;
            }
            // Bounded by the jobs under way: each asks one question at a time.
            let (sender, questions) = channel::<Question>();
            let serve = move || questions.into_iter().for_each(|question| question());
            thread::Builder::new().name("ringlift-stat".to_owned()).spawn(serve).ok()?;
            thread.questions = Some(sender);
        }
        thread.questions.as_ref()?.send(question).ok()?;
        let (sender, expired) = oneshot::channel();
        thread.deadlines.push((Instant::now() + LONGEST_SILENCE, sender));
        Some(expired)
    }

    fn lock(&self) -> MutexGuard<'_, ExaminingThread> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Examiner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Examiner").finish_non_exhaustive()
    }
}

/// A disk that spins up takes less, and no other job begins meanwhile.
pub(super) const LONGEST_SILENCE: Duration = Duration::from_secs(15);

/// With as many dead files it is the mount: each thread would take memory for ever.
const MOST_ABANDONED: usize = 16;

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_file_that_does_not_answer_is_given_up_and_the_next_one_is_examined() {
        let examiner = Examiner::default();
        assert_eq!(pollster::block_on(examiner.ask(|| 1)), Some(1));
        let (release, held) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let hanging = scope.spawn(|| pollster::block_on(examiner.ask(move || held.recv().is_ok())));
            while examiner.lock().deadlines.iter().all(|(_, question)| question.is_closed()) {
                thread::yield_now();
            }
            examiner.expire(Instant::now());
            assert!(!hanging.is_finished() || examiner.lock().abandoned == 0);
            examiner.expire(Instant::now() + LONGEST_SILENCE);
            assert_eq!(hanging.join().unwrap(), None);
        });
        assert_eq!(pollster::block_on(examiner.ask(|| 2)), Some(2));
        drop(release);
    }
}
