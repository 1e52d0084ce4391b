//! Reads "SPEC<TAB>MODULE<TAB>LEVEL" lines and prints what tracing-subscriber's EnvFilter decides: `1` enabled, `0`
//! disabled, `E` when it refuses the spec. One answer a line, in order.
use std::io::{self, BufRead, Write};

use tracing_core::{callsite, field::FieldSet, identify_callsite, metadata::Kind, subscriber::Interest};
use tracing_core::{Callsite, Level, Metadata, Subscriber};
use tracing_subscriber::{layer::SubscriberExt, EnvFilter};

/// Real callsites are made by macros and have their target compiled in; ours lend a name to any target.
struct Anywhere;
static ANYWHERE: Anywhere = Anywhere;
static ANYWHERE_META: Metadata<'static> = Metadata::new(
    "event",
    "anywhere",
    Level::ERROR,
    None,
    None,
    None,
    FieldSet::new(&[], identify_callsite!(&ANYWHERE)),
    Kind::EVENT,
);

impl callsite::Callsite for Anywhere {
    fn set_interest(&self, _: Interest) {}
    fn metadata(&self) -> &Metadata<'_> {
        &ANYWHERE_META
    }
}

fn decide(spec: &str, module: &str, level: &str) -> char {
    // Builder::parse is strict: it refuses what EnvFilter::new would skip with a warning on stderr.
    let Ok(filter) = EnvFilter::builder().parse(spec) else {
        return 'E';
    };
    let level: Level = level.parse().expect("a level");
    let fields = FieldSet::new(&[], identify_callsite!(&ANYWHERE));
    let meta = Metadata::new("event", module, level, None, None, None, fields, Kind::EVENT);
    let subscriber = tracing_subscriber::registry().with(filter);
    if subscriber.enabled(&meta) {
        '1'
    } else {
        '0'
    }
}

fn main() -> io::Result<()> {
    let _ = ANYWHERE.metadata();
    let mut out = io::BufWriter::new(io::stdout().lock());
    for line in io::stdin().lock().lines() {
        let line = line?;
        let mut parts = line.split('\t');
        let (Some(spec), Some(module), Some(level)) = (parts.next(), parts.next(), parts.next()) else {
            panic!("expected SPEC<TAB>MODULE<TAB>LEVEL, got {line:?}");
        };
        writeln!(out, "{}", decide(spec, module, level))?;
    }
    out.flush()
}
