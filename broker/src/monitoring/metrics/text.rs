//! Families of metrics, and the two texts they are written in.
//!
//! The library writes OpenMetrics. Who does not ask for that gets the older text of Prometheus,
//! which differs in little: a counter is named there as its sample is.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

/// Names and values of labels, shared by the samples of one thing.
pub(super) type Labels = Arc<Vec<(&'static str, String)>>;

/// One number.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Whole(u64),
    Signed(i64),
    Fraction(f64),
    /// Sum, and counts by upper bound.
    Histogram(f64, Vec<(f64, u64)>),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::Whole(value as u64)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Signed(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Fraction(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Whole(u64::from(value))
    }
}

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    const fn metric_type(self) -> MetricType {
        match self {
            Self::Counter => MetricType::Counter,
            Self::Gauge => MetricType::Gauge,
            Self::Histogram => MetricType::Histogram,
        }
    }
}

/// A metric with all its samples. A counter is named without `_total`.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: Cow<'static, str>,
    pub(super) help: Cow<'static, str>,
    pub(super) kind: Kind,
    samples: Vec<(Labels, Value)>,
}

impl Family {
    pub(super) fn new(
        kind: Kind,
        name: impl Into<Cow<'static, str>>,
        help: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            name: name.into(),
            help: help.into(),
            kind,
            samples: Vec::new(),
        }
    }

    pub(super) fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(Kind::Counter, name, help)
    }

    pub(super) fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(Kind::Gauge, name, help)
    }

    /// With one sample that has no labels.
    pub(super) fn of(mut self, value: impl Into<Value>) -> Self {
        self.add(&Labels::default(), value);
        self
    }

    pub(super) fn add(&mut self, labels: &Labels, value: impl Into<Value>) {
        self.samples.push((Arc::clone(labels), value.into()));
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let kind = self.kind.metric_type();
        let mut metric = encoder.encode_descriptor(&self.name, &self.help, None, kind)?;
        for (labels, value) in &self.samples {
            if labels.is_empty() {
                self.put(&mut metric, value)?;
            } else {
                let mut sample = metric.encode_family(&**labels)?;
                self.put(&mut sample, value)?;
            }
        }
        Ok(())
    }

    fn put(&self, sample: &mut MetricEncoder<'_>, value: &Value) -> fmt::Result {
        match (value, self.kind) {
            (Value::Histogram(sum, buckets), _) => {
                let count = buckets.iter().map(|(_, count)| count).sum();
                sample.encode_histogram::<NoLabelSet>(*sum, count, buckets, None)
            }
            (Value::Whole(value), Kind::Counter) => {
                sample.encode_counter::<NoLabelSet, _, u64>(value, None)
            }
            (Value::Fraction(value), Kind::Counter) => {
                sample.encode_counter::<NoLabelSet, _, u64>(value, None)
            }
            (Value::Whole(value), _) => sample.encode_gauge(value),
            (Value::Signed(value), _) => sample.encode_gauge(value),
            (Value::Fraction(value), _) => sample.encode_gauge(value),
        }
    }
}

/// Everything one scrape gets.
#[derive(Debug, Default)]
pub(super) struct Page(pub(super) Vec<Family>);

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let filled = self.0.iter().filter(|family| !family.samples.is_empty());
        for family in filled {
            family.encode(&mut encoder)?;
        }
        Ok(())
    }
}

/// The text a scraper understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    OpenMetrics,
    Prometheus,
}

impl Format {
    /// What an `Accept` header asks for.
    pub(super) fn accepted(header: &str) -> Self {
        if header.contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// Its media type.
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

impl Page {
    /// The page as text.
    ///
    /// # Errors
    /// Never: a string takes everything.
    pub(super) fn write(self, format: Format) -> Result<String, fmt::Error> {
        let is_counter = |family: &&Family| family.kind == Kind::Counter;
        let counters = self.0.iter().filter(is_counter);
        let counters: HashSet<String> = counters.map(|family| family.name.to_string()).collect();
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(match format {
            Format::OpenMetrics => text,
            Format::Prometheus => without_open_metrics(&text, &counters),
        })
    }
}

/// The older text: a counter carries `_total` in its name too, and there is no end mark.
fn without_open_metrics(text: &str, counters: &HashSet<String>) -> String {
    let mut plain = String::with_capacity(text.len() + 1024);
    for line in text.lines() {
        let about = line
            .strip_prefix("# HELP ")
            .or_else(|| line.strip_prefix("# TYPE "));
        match about.and_then(|about| about.split_once(' ')) {
            Some((name, rest)) if counters.contains(name) => {
                let (mark, _) = line.split_at("# HELP ".len());
                plain.extend([mark, name, "_total ", rest, "\n"]);
            }
            _ if line == "# EOF" => {}
            _ => plain.extend([line, "\n"]),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Page {
        let labels: Labels = Arc::new(vec![("a", "q\"\\\nx".to_owned())]);
        let mut many = Family::counter("c", "Many");
        many.add(&labels, 3_u64);
        let mut times = Family::new(Kind::Histogram, "h_seconds", "Times");
        let buckets = vec![(0.5, 1), (f64::INFINITY, 2)];
        times.add(&Labels::default(), Value::Histogram(4.5, buckets));
        let none = Family::gauge("none", "Without samples");
        Page(vec![
            many,
            Family::gauge("g", "One").of(-1_i64),
            times,
            none,
        ])
    }

    #[test]
    fn a_page_is_written_as_open_metrics() {
        assert_eq!(
            page().write(Format::OpenMetrics).expect("text"),
            "# HELP c Many\n# TYPE c counter\nc_total{a=\"q\\\"\\\\\\nx\"} 3\n\
             # HELP g One\n# TYPE g gauge\ng -1\n\
             # HELP h_seconds Times\n# TYPE h_seconds histogram\n\
             h_seconds_sum 4.5\nh_seconds_count 3\n\
             h_seconds_bucket{le=\"0.5\"} 1\nh_seconds_bucket{le=\"+Inf\"} 3\n# EOF\n"
        );
    }

    #[test]
    fn the_older_text_names_counters_as_their_samples() {
        let text = page().write(Format::Prometheus).expect("text");
        assert!(text.starts_with("# HELP c_total Many\n# TYPE c_total counter\nc_total{"));
        assert!(!text.contains("EOF") && text.contains("\n# TYPE g gauge\n"));
    }

    #[test]
    fn open_metrics_is_for_those_who_ask() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;q=0.4";
        assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
        assert_eq!(Format::accepted("*/*"), Format::Prometheus);
    }
}
