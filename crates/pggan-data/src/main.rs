//! `pggan-data`: prepares, shows and checks data sets.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is what people read")]

mod cli;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use indicatif::ProgressStyle;
use tracing::Span;
use tracing_indicatif::IndicatifLayer;
use tracing_indicatif::span_ext::IndicatifSpanExt;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Decoders take and give back large buffers at every image; this allocator keeps them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let bars = IndicatifLayer::new();
    let log = tracing_subscriber::fmt::layer()
        .with_writer(bars.get_stderr_writer())
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .without_time();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let bars = std::io::stderr().is_terminal().then_some(bars);
    tracing_subscriber::registry().with(filter).with(log).with(bars).init();

    let cli = pggan_data::flags::parse::<cli::Cli>().map_err(anyhow::Error::msg);
    match cli.and_then(cli::Cli::run) {
        Ok(text) => {
            println!("{}", text.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Progress: a bar on a terminal, else a line now and then.
struct Meter {
    verb: &'static str,
    unit: &'static str,
    /// The bar lives as long as its span.
    span: Option<Span>,
    begin: Instant,
    next_line: Duration,
}

/// Time between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

impl Meter {
    fn new(verb: &'static str, unit: &'static str) -> Self {
        Self { verb, unit, span: None, begin: Instant::now(), next_line: LINE_EVERY }
    }

    fn show(&mut self, done: u64, total: u64, restored: u64) {
        if std::io::stderr().is_terminal() {
            self.bar(total, restored).pb_set_position(done);
            return;
        }
        if done == restored + 1 {
            self.begin = Instant::now();
        }
        let elapsed = self.begin.elapsed();
        if elapsed >= self.next_line && done > restored {
            self.next_line = elapsed + LINE_EVERY;
            let rate = (done - restored) as f64 / elapsed.as_secs_f64();
            let left = (total - done) as f64 / rate;
            eprintln!(
                "{} {done} of {total}, {rate:.0} {}/s, {left:.0} s left",
                self.verb, self.unit
            );
        }
    }

    fn bar(&mut self, total: u64, restored: u64) -> &Span {
        self.span.get_or_insert_with(|| {
            let span = tracing::info_span!("progress");
            let template =
                format!("{} {{bar:32}} {{pos}}/{{len}}  {{per_sec}}  {{eta}} left", self.verb);
            let style = ProgressStyle::with_template(&template)
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            span.pb_set_style(&style);
            span.pb_set_length(total);
            span.pb_start();
            span.pb_set_position(restored);
            span.pb_reset_eta();
            span
        })
    }

    fn finish(&mut self) {
        self.span = None;
    }
}
