//! Rounds, in turns, and what comes of them.

use std::{
    fmt, fs, iter,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use sealback_examples::peak_rss_bytes;
use serde::Serialize;

use crate::{Failure, cases::Case};

/// Fewer say nothing of how much they differ.
const MIN_ROUNDS: usize = 5;

/// How long a case is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) seconds: f64,
}

/// One round's work. What comes before and after it is not timed.
#[derive(Debug, Default)]
pub(crate) struct Round {
    pub(crate) bytes: u64,
    pub(crate) took: Duration,
    /// CPU time of all threads.
    pub(crate) cpu: Duration,
    /// How many operations it was, of cases that are about that.
    pub(crate) operations: u64,
    /// How long each of them took, of cases that are about that.
    pub(crate) latencies: Vec<Duration>,
    /// The most memory that the process had resident meanwhile, of cases that are about that, and where the
    /// system tells.
    pub(crate) peak_bytes: Option<u64>,
}

impl Round {
    /// Times `work` on `bytes` bytes.
    pub(crate) fn time(
        bytes: u64,
        work: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<Round, Failure> {
        let (cpu, started) = (cpu_time(), Instant::now());
        work()?;
        Ok(Round {
            bytes,
            took: started.elapsed(),
            cpu: cpu_time().saturating_sub(cpu),
            ..Round::default()
        })
    }

    /// Notes how much memory the process has at most while `round` runs.
    pub(crate) fn with_peak(
        round: impl FnOnce() -> Result<Round, Failure>,
    ) -> Result<Round, Failure> {
        // The peak so far is forgotten: proc_pid_clear_refs(5).
        let is_forgotten = fs::write("/proc/self/clear_refs", "5").is_ok();
        let round = round()?;
        Ok(Round { peak_bytes: peak_rss_bytes().filter(|_| is_forgotten), ..round })
    }

    fn operations_per_s(&self) -> f64 {
        self.operations as f64 / self.took.as_secs_f64()
    }

    fn gb_per_s(&self) -> f64 {
        self.bytes as f64 / 1e9 / self.took.as_secs_f64()
    }

    fn cpu_s_per_gb(&self) -> f64 {
        self.cpu.as_secs_f64() / (self.bytes as f64 / 1e9)
    }
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec))
}

/// What is measured, and what against: each call is one round.
pub(crate) struct Sides {
    pub(crate) subject: Side,
    pub(crate) reference: Side,
}

pub(crate) type Side = Box<dyn FnMut() -> Result<Round, Failure>>;

/// What came of a case.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    case: &'static str,
    gb_per_s: f64,
    reference: &'static str,
    reference_gb_per_s: f64,
    /// The median of the rounds' ratios. Of cases about latency: how many times as long the median
    /// operation took.
    ratio: f64,
    /// Between the quartiles of the rounds' ratios, as a share of the ratio.
    spread: f64,
    rounds: usize,
    cpu_s_per_gb: f64,
    reference_cpu_s_per_gb: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    operations_per_s: Option<BothSides>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency: Option<Latencies>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_bytes: Option<BothSides>,
}

/// What was counted of the case, and of its reference.
#[derive(Clone, Copy, Debug, Serialize)]
struct BothSides {
    subject: f64,
    reference: f64,
}

/// Operations' times in microseconds, the reference's behind.
#[derive(Clone, Copy, Debug, Serialize)]
struct Latencies {
    p50_us: f64,
    p99_us: f64,
    reference_p50_us: f64,
    reference_p99_us: f64,
}

/// Runs a case and its reference in turns, after one round of each that does not count: memory that is
/// touched for the first time, and files' first pages, are slow.
pub(crate) fn measure(case: &Case, mut sides: Sides, limits: Limits) -> Result<Outcome, Failure> {
    // The reference has its peak of memory before there was any other.
    let (warm_reference, warm_subject) = ((sides.reference)()?, (sides.subject)()?);
    let (mut subjects, mut references) = (Vec::new(), Vec::new());
    let started = Instant::now();
    while subjects.len() < MIN_ROUNDS || started.elapsed().as_secs_f64() < limits.seconds {
        references.push((sides.reference)()?);
        subjects.push((sides.subject)()?);
    }
    let pairs = subjects.iter().zip(&references);
    let mut ratios: Vec<f64> =
        pairs.map(|(subject, reference)| subject.gb_per_s() / reference.gb_per_s()).collect();
    let latency = latencies(&subjects, &references);
    let ratio = latency.map_or_else(
        || percentile(&mut ratios, 50),
        |latency| latency.p50_us / latency.reference_p50_us,
    );
    let has_operations = subjects.iter().any(|round| round.operations > 0);
    let operations_per_s = has_operations.then(|| BothSides {
        subject: median(&subjects, Round::operations_per_s),
        reference: median(&references, Round::operations_per_s),
    });
    let peak_bytes = peaks(
        iter::once(&warm_subject).chain(&subjects),
        iter::once(&warm_reference).chain(&references),
    );
    let between = percentile(&mut ratios, 75) - percentile(&mut ratios, 25);
    Ok(Outcome {
        case: case.name,
        gb_per_s: median(&subjects, Round::gb_per_s),
        reference: case.against,
        reference_gb_per_s: median(&references, Round::gb_per_s),
        ratio,
        spread: between / percentile(&mut ratios, 50),
        rounds: subjects.len(),
        cpu_s_per_gb: median(&subjects, Round::cpu_s_per_gb),
        reference_cpu_s_per_gb: median(&references, Round::cpu_s_per_gb),
        operations_per_s,
        latency,
        peak_bytes,
    })
}

/// The most that the case ever had, and the least that sufficed for its reference.
fn peaks<'a>(
    subjects: impl Iterator<Item = &'a Round>,
    references: impl Iterator<Item = &'a Round>,
) -> Option<BothSides> {
    let subject = subjects.filter_map(|round| round.peak_bytes).max()? as f64;
    let reference = references.filter_map(|round| round.peak_bytes).min()? as f64;
    Some(BothSides { subject, reference })
}

fn latencies(subjects: &[Round], references: &[Round]) -> Option<Latencies> {
    let micros = |rounds: &[Round]| -> Vec<f64> {
        let all = rounds.iter().flat_map(|round| &round.latencies);
        all.map(|took| took.as_secs_f64() * 1e6).collect()
    };
    let (mut ours, mut theirs) = (micros(subjects), micros(references));
    (!ours.is_empty() && !theirs.is_empty()).then(|| Latencies {
        p50_us: percentile(&mut ours, 50),
        p99_us: percentile(&mut ours, 99),
        reference_p50_us: percentile(&mut theirs, 50),
        reference_p99_us: percentile(&mut theirs, 99),
    })
}

fn median(rounds: &[Round], of: impl Fn(&Round) -> f64) -> f64 {
    percentile(&mut rounds.iter().map(of).collect::<Vec<_>>(), 50)
}

/// The value that so many percent of the others are below. There is at least one.
fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) * percent / 100]
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<22} {:>7.3} GB/s  {:>5.2} of {:<34} {:>7.3} GB/s  spread {:.2}, {} rounds, \
             CPU {:.3} and {:.3} s/GB",
            self.case,
            self.gb_per_s,
            self.ratio,
            self.reference,
            self.reference_gb_per_s,
            self.spread,
            self.rounds,
            self.cpu_s_per_gb,
            self.reference_cpu_s_per_gb,
        )?;
        if let Some(latency) = self.latency {
            write!(
                f,
                ", p50 {:.0} and {:.0} µs, p99 {:.0} and {:.0} µs",
                latency.p50_us, latency.reference_p50_us, latency.p99_us, latency.reference_p99_us,
            )?;
        }
        if let Some(per_s) = self.operations_per_s {
            write!(f, ", {:.0} and {:.0} operations/s", per_s.subject, per_s.reference)?;
        }
        if let Some(peak) = self.peak_bytes {
            let mib = |bytes| bytes / f64::from(1 << 20);
            write!(f, ", at most {:.1} and {:.1} MiB", mib(peak.subject), mib(peak.reference))?;
        }
        Ok(())
    }
}

pub(crate) fn to_json(outcomes: &[Outcome]) -> Result<String, Failure> {
    #[derive(Serialize)]
    struct Report<'a> {
        machine: String,
        cases: &'a [Outcome],
    }
    Ok(serde_json::to_string(&Report { machine: machine(), cases: outcomes })?)
}

/// The processor and how many of its cores there are, as far as the system tells.
fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown", |line| line.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!("{model}, {cores} cores")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(bytes: u64, millis: u64) -> Round {
        Round { bytes, took: Duration::from_millis(millis), ..Round::default() }
    }

    #[test]
    fn the_ratio_is_the_median_of_the_rounds_ratios_and_the_first_round_does_not_count() {
        // Each round of the subject is as much slower as the reference's beside it.
        let (mut subjects, mut references) = (0, 0);
        let sides = Sides {
            subject: Box::new(move || {
                subjects += 1;
                Ok(round(1_000_000, if subjects == 1 { 1_000_000 } else { 20 * subjects }))
            }),
            reference: Box::new(move || {
                references += 1;
                Ok(round(1_000_000, 10 * references))
            }),
        };
        let case = &crate::cases::ALL[1];
        let outcome = measure(case, sides, Limits { seconds: 0.0 }).unwrap();
        assert_eq!(outcome.rounds, MIN_ROUNDS);
        assert!((outcome.ratio - 0.5).abs() < 1e-9 && outcome.spread < 1e-9, "{outcome}");
    }

    #[test]
    fn the_json_is_an_object_of_the_machine_and_the_cases() {
        let side = || -> Side { Box::new(|| Ok(round(1_000_000, 10))) };
        let sides = Sides { subject: side(), reference: side() };
        let outcome = measure(&crate::cases::ALL[1], sides, Limits { seconds: 0.0 }).unwrap();
        let json = to_json(&[outcome]).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert!(json["machine"].is_string());
        let case = &json["cases"][0];
        assert!(case["case"] == "seal-1" && case["reference"] == crate::cases::ALL[1].against);
        for number in ["gb_per_s", "reference_gb_per_s", "ratio", "spread"] {
            assert!(case[number].is_number(), "{number} in {case}");
        }
        for other in ["operations_per_s", "latency", "peak_bytes"] {
            assert!(case.get(other).is_none(), "{other} in {case}");
        }
    }

    #[test]
    fn a_cases_peak_is_its_greatest_and_its_references_the_least() {
        let grows = |by: u64| -> Side {
            let mut peak = 0;
            Box::new(move || {
                peak += by;
                Ok(Round { peak_bytes: Some(peak), ..round(1_000_000, 10) })
            })
        };
        let sides = Sides { subject: grows(10), reference: grows(1) };
        let outcome = measure(&crate::cases::ALL[1], sides, Limits { seconds: 0.0 }).unwrap();
        let peak = outcome.peak_bytes.unwrap();
        assert_eq!((peak.subject, peak.reference), (60.0, 1.0));
    }

    #[test]
    fn a_peak_is_of_its_round_alone() {
        let peak_of = |bytes: usize| {
            let round = Round::with_peak(|| {
                std::hint::black_box(vec![7_u8; bytes]);
                Ok(Round::default())
            });
            round.unwrap().peak_bytes
        };
        let (Some(large), Some(small)) = (peak_of(64 << 20), peak_of(1 << 10)) else { return };
        assert!(large > small + (32 << 20), "{large} and {small} bytes");
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let mut values = vec![5.0, 1.0, 4.0, 2.0, 3.0];
        assert_eq!(
            [0, 25, 50, 99, 100].map(|p| percentile(&mut values, p)),
            [1.0, 2.0, 3.0, 4.0, 5.0]
        );
    }
}
