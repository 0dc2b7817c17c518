//! What an answer means for a request: of the crypto pool, of a target, of a merge.

use std::{ops::Range, time::Duration};

use sealback_crypto::{SealError, Sealed};
use sealback_stream::{
    BlockConflict, Collected, Failure, Role, TargetError, TargetErrorKind, Ticket,
};

use super::{Action, Host, Request};
use crate::{Cause, Error, retryer::LastFailure, rmw::Merged, trace::TraceEvent};

impl Request {
    pub(super) fn on_sealed(
        &mut self,
        span: u64,
        result: Result<Sealed, SealError>,
        host: &mut impl Host,
    ) {
        match result {
            Ok(sealed) => {
                self.spans.sealed(span, Some(sealed));
                self.stats.spans += 1;
                if host.tracing() {
                    host.trace(TraceEvent::Sealed { span });
                }
            }
            Err(error) => {
                self.spans.sealed(span, None);
                self.end_with(Error::Seal(std::sync::Arc::new(error)));
            }
        }
    }

    pub(super) fn on_terminated(
        &mut self,
        ticket: Ticket,
        outcome: Result<u64, Failure>,
        now: Duration,
        host: &mut impl Host,
    ) {
        let Ticket { stream: index, id } = ticket;
        if host.tracing() {
            let outcome = outcome.as_ref().map(|n| *n).map_err(Failure::to_string);
            host.trace(TraceEvent::Terminated { stream: index, id, outcome });
        }
        self.patience[index].heard(now);
        if let Some(issued_at) = self.streams[index].issued_at(id) {
            self.stats.streams[index].latency.record(now.saturating_sub(issued_at));
        }
        let cause = Cause::of(&outcome);
        let collected = self.streams[index].terminated(id, outcome);
        self.stats.streams[index].bytes += collected.bytes();
        let role = self.streams[index].role();
        match (collected, role) {
            (Collected::Ignored | Collected::Passed { .. }, _) => {}
            (Collected::Failed { failure, .. }, Role::May)
            | (Collected::Unfinished { failure, .. }, Role::May) => {
                self.switch_off(index, failure, host);
            }
            (Collected::Failed { blocks, attempts, failure }, Role::Must) => {
                self.give_up(LastFailure { blocks: blocks.hull(), attempts, failure });
            }
            (Collected::Unfinished { blocks, attempts, failure, .. }, Role::Must) => {
                let (paused, range) = (self.retryer.is_paused(), blocks.hull());
                self.stats.streams[index].retries.count(cause);
                if let Failure::Conflict(conflicts) = &failure {
                    self.stats.conflicts += conflicts.len() as u64;
                    let is_lost = |conflict: &&BlockConflict| {
                        !blocks.contains(conflict.block)
                            || self.spans.to_merge(conflict.block).is_none()
                    };
                    let lost: Vec<_> = conflicts.iter().filter(is_lost).copied().collect();
                    if conflicts.is_empty() || !lost.is_empty() {
                        let failure = Failure::Conflict(lost);
                        return self.give_up(LastFailure { blocks: range, attempts, failure });
                    }
                    conflicts.iter().for_each(|conflict| self.merger.add(conflict.block));
                    let n_blocks = conflicts.len();
                    host.trace(TraceEvent::Conflict { stream: index, id, n_blocks });
                }
                match self.retryer.failed(now, LastFailure { blocks: range, attempts, failure }) {
                    Some(last) => self.give_up(last),
                    None if !paused => {
                        self.paused(now);
                        host.trace(TraceEvent::Paused { stream: index, cause });
                    }
                    None => {}
                }
            }
        }
    }

    pub(super) fn on_merged(
        &mut self,
        block: u64,
        result: Result<Merged, Error>,
        host: &mut impl Host,
    ) {
        self.merger.ended();
        match result {
            Ok(Merged { sealed, expected, plain }) => {
                self.spans.merged(block, &sealed, expected);
                self.stats.merges += 1;
                host.trace(TraceEvent::Merged { block });
                self.actions.push(Action::Refresh { block, plain });
            }
            Err(error) => self.end_with(error),
        }
    }

    pub(super) fn switch_off(&mut self, index: usize, failure: Failure, host: &mut impl Host) {
        let cause = Cause::of_failure(&failure);
        host.trace(TraceEvent::Off { stream: index, cause });
        self.streams[index].switch_off();
        self.stats.streams[index].switched_off += 1;
        self.actions.push(Action::StreamOff { stream: index, failure });
    }

    fn give_up(&mut self, last: LastFailure) {
        let LastFailure { blocks, attempts, failure } = last;
        let range = Some(self.positions(&blocks));
        self.end_with(match failure {
            Failure::Conflict(blocks) => Error::Conflict { blocks },
            Failure::Fatal(source) | Failure::Renegotiate(source) | Failure::Retry(source) => {
                Error::Server { range, attempts, source }
            }
            _ => {
                let source = TargetError::new(TargetErrorKind::Io, failure.to_string());
                Error::Server { range, attempts, source }
            }
        });
    }

    fn positions(&self, blocks: &Range<u64>) -> Range<u64> {
        self.geometry.block_start(blocks.start)..self.geometry.block_start(blocks.end)
    }
}
