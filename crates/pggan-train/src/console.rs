//! The log: for people on the terminal, around the progress bar, and in the run's `log.txt`.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::{Event, Level, Subscriber};
use tracing_indicatif::IndicatifLayer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

/// Where the log goes.
pub(crate) struct Console {
    file: LogFile,
}

/// Starts logging. `RUST_LOG` chooses what is shown, as everywhere.
pub(crate) fn init() -> Console {
    let file = LogFile::default();
    subscriber(file.clone()).init();
    Console { file }
}

fn subscriber(file: LogFile) -> impl Subscriber + Send + Sync {
    let bars = IndicatifLayer::new();
    let filter = || EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let terminal = tracing_subscriber::fmt::layer()
        .event_format(Plain)
        .with_writer(bars.get_stderr_writer())
        .with_filter(filter());
    let log = tracing_subscriber::fmt::layer()
        .event_format(Plain)
        .with_ansi(false)
        .with_writer(file)
        .with_filter(filter());
    // Every pass of every layer is a span, which nobody looks at here: to make each a hidden bar would take some percent of
    // the time in small networks.
    let bars = bars.with_filter(LevelFilter::INFO);
    tracing_subscriber::registry().with(terminal).with(log).with(bars)
}

impl Console {
    /// From now on, the log is also appended to this file; so is what was logged before.
    pub(crate) fn log_to(&self, path: &Path) -> io::Result<()> {
        let mut file = File::options().create(true).append(true).open(path)?;
        let mut state = self.file.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Sink::Memory(early) = &*state {
            file.write_all(early)?;
        }
        *state = Sink::File(file);
        Ok(())
    }
}

/// The message itself; what is worse than information says so in front.
struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        match *event.metadata().level() {
            Level::ERROR => writer.write_str("error: ")?,
            Level::WARN => writer.write_str("warning: ")?,
            _ => {}
        }
        context.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// The run's log file, once the run has a folder; memory until then.
#[derive(Clone, Default)]
struct LogFile(Arc<Mutex<Sink>>);

enum Sink {
    Memory(Vec<u8>),
    File(File),
}

impl Default for Sink {
    fn default() -> Self {
        Sink::Memory(Vec::new())
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Sink::Memory(early) => early.write(bytes),
            Sink::File(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_of_layers_make_no_spans() {
        tracing::subscriber::with_default(subscriber(LogFile::default()), || {
            assert!(tracing::trace_span!("forward", layer = "conv0").is_disabled());
            assert!(!tracing::info_span!("progress").is_disabled());
        });
    }
}
