//! Mappings: what a published subject becomes before anyone looks at it.

use menes_protocol::subject;
use menes_protocol::transform::{Transform, TransformError, number_wildcards};

use super::description::{Destination, MappingDescription};

/// Why a mapping is refused; the texts are those of nats-server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// The source is no subject.
    #[error("invalid subject")]
    InvalidSource,
    /// A destination occurs twice.
    #[error("duplicate entry for {0:?}")]
    Duplicate(String),
    /// A weight above 100.
    #[error("individual weights need to be <= 100")]
    Weight,
    /// The weights of one cluster, or of those without one, are above 100 together.
    #[error("total weight needs to be <= 100")]
    TotalWeight,
    /// A destination that does not go with its source.
    #[error(transparent)]
    Transform(#[from] TransformError),
}

/// The mappings of an account, ready to be applied.
#[derive(Debug, Default)]
pub struct Mappings(Vec<Mapping>);

#[derive(Debug)]
struct Mapping {
    source: Box<str>,
    ways: Vec<Way>,
}

/// Where numbers from the end of the way before to below `end` lead.
#[derive(Debug)]
struct Way {
    end: u8,
    transform: Transform,
}

/// What becomes of a subject that has a mapping.
#[derive(Debug, PartialEq, Eq)]
pub enum Mapped {
    /// Another subject, or the same.
    To(Vec<u8>),
    /// Nothing: the message is lost, as the mapping has it.
    Lost,
}

impl Mappings {
    /// The mappings as they are described, seen from a server of `cluster`. Of two mappings with
    /// the same source the later one holds, in the place of the first.
    ///
    /// # Errors
    /// The first mapping that is wrong, by its number, and why.
    pub fn new(
        described: &[MappingDescription],
        cluster: Option<&str>,
    ) -> Result<Self, (usize, MappingError)> {
        let mut all: Vec<Mapping> = Vec::with_capacity(described.len());
        for (at, mapping) in described.iter().enumerate() {
            let mapping = Mapping::new(mapping, cluster).map_err(|error| (at, error))?;
            match all.iter_mut().find(|known| known.source == mapping.source) {
                Some(known) => *known = mapping,
                None => all.push(mapping),
            }
        }
        Ok(Self(all))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What becomes of `subject`; `None` when no mapping speaks of it. `random` decides between
    /// several destinations.
    #[must_use]
    pub fn map(&self, subject: &[u8], random: u32) -> Option<Mapped> {
        let mapping = self
            .0
            .iter()
            .find(|mapping| subject::matches(mapping.source.as_bytes(), subject))?;
        let chance = u8::try_from(random % 100).expect("below 100");
        let way = mapping.ways.iter().find(|way| chance < way.end);
        Some(way.map_or(Mapped::Lost, |way| {
            Mapped::To(way.transform.rewrite(subject, random / 100))
        }))
    }
}

impl Mapping {
    fn new(described: &MappingDescription, cluster: Option<&str>) -> Result<Self, MappingError> {
        let source = described.source.as_str();
        if !subject::is_valid(source.as_bytes()) {
            return Err(MappingError::InvalidSource);
        }
        let all = &described.destinations;
        for (at, destination) in all.iter().enumerate() {
            check_weight(&all[..at], destination)?;
            Transform::mapping(source, &destination.subject)?;
        }
        let is_of = |destination: &&Destination, cluster: Option<&str>| {
            destination.cluster.as_deref() == cluster
        };
        let has_own = cluster.is_some() && all.iter().any(|d| is_of(&d, cluster));
        let cluster = cluster.filter(|_| has_own);
        let mut ways = Vec::new();
        let mut total = 0;
        for destination in all.iter().filter(|d| is_of(d, cluster)) {
            total += destination.weight;
            ways.push((
                destination.weight,
                Transform::mapping(source, &destination.subject)?,
            ));
        }
        // Loss is asked for by naming the source as a destination.
        let names_source = all.iter().any(|d| d.subject == source);
        if total < 100 && !names_source {
            let same = number_wildcards(source);
            ways.push((100 - total, Transform::new(source, &same)?));
        }
        Ok(Self {
            source: source.into(),
            ways: ways_of(ways),
        })
    }
}

/// The weights become the ends of neighbouring ranges of numbers.
fn ways_of(mut weighted: Vec<(u8, Transform)>) -> Vec<Way> {
    weighted.sort_by_key(|(weight, _)| *weight);
    let mut end = 0;
    weighted
        .into_iter()
        .map(|(weight, transform)| {
            end += weight;
            Way { end, transform }
        })
        .collect()
}

fn check_weight(before: &[Destination], next: &Destination) -> Result<(), MappingError> {
    if before.iter().any(|known| known.subject == next.subject) {
        return Err(MappingError::Duplicate(next.subject.clone()));
    }
    if next.weight > 100 {
        return Err(MappingError::Weight);
    }
    let of_cluster = before.iter().filter(|known| known.cluster == next.cluster);
    let total: u32 = of_cluster.map(|known| u32::from(known.weight)).sum();
    if total + u32::from(next.weight) > 100 {
        return Err(MappingError::TotalWeight);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn to(subject: &str, weight: u8, cluster: Option<&str>) -> Destination {
        Destination {
            subject: subject.to_owned(),
            weight,
            cluster: cluster.map(str::to_owned),
        }
    }

    fn mapping(source: &str, destinations: Vec<Destination>) -> MappingDescription {
        MappingDescription {
            source: source.to_owned(),
            destinations,
        }
    }

    /// How often a subject becomes what, for each of the hundred numbers.
    fn spread(mappings: &Mappings, subject: &str) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for random in 0..100 {
            let text = match mappings.map(subject.as_bytes(), random) {
                Some(Mapped::To(subject)) => String::from_utf8(subject).expect("text"),
                Some(Mapped::Lost) => "lost".to_owned(),
                None => "none".to_owned(),
            };
            *counts.entry(text).or_default() += 1;
        }
        counts
    }

    fn counts(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
        let own = |&(name, count): &(&str, usize)| (name.to_owned(), count);
        pairs.iter().map(own).collect()
    }

    #[test]
    fn what_is_missing_to_a_hundred_stays() {
        let described = [mapping(
            "a.*",
            vec![to("b.$1", 20, None), to("c.$1", 30, None)],
        )];
        let mappings = Mappings::new(&described, None).expect("good");
        let expected = counts(&[("b.x", 20), ("c.x", 30), ("a.x", 50)]);
        assert_eq!(spread(&mappings, "a.x"), expected);
        assert_eq!(spread(&mappings, "z"), counts(&[("none", 100)]));
    }

    #[test]
    fn naming_the_source_loses_the_rest() {
        let described = [mapping("a", vec![to("a", 90, None)])];
        let mappings = Mappings::new(&described, None).expect("good");
        assert_eq!(spread(&mappings, "a"), counts(&[("a", 90), ("lost", 10)]));
    }

    #[test]
    fn destinations_of_a_cluster_replace_the_others() {
        let described = [mapping(
            "a",
            vec![to("b", 100, None), to("c", 40, Some("east"))],
        )];
        let at = |cluster| Mappings::new(&described, cluster).expect("good");
        assert_eq!(spread(&at(None), "a"), counts(&[("b", 100)]));
        assert_eq!(spread(&at(Some("west")), "a"), counts(&[("b", 100)]));
        let east = counts(&[("c", 40), ("a", 60)]);
        assert_eq!(spread(&at(Some("east")), "a"), east);
    }

    #[test]
    fn the_first_mapping_that_matches_applies() {
        let described = [
            mapping("a.*", vec![to("first.$1", 100, None)]),
            mapping("a.x", vec![to("second", 100, None)]),
            mapping("a.*", vec![to("third.$1", 100, None)]),
        ];
        let mappings = Mappings::new(&described, None).expect("good");
        assert_eq!(spread(&mappings, "a.x"), counts(&[("third.x", 100)]));
    }

    #[test]
    fn mistakes_have_the_texts_of_nats_server() {
        let error = |source, destinations| {
            let described = [mapping(source, destinations)];
            let (_, error) = Mappings::new(&described, None).expect_err("wrong");
            error.to_string()
        };
        assert_eq!(error("a..b", vec![]), "invalid subject");
        assert_eq!(
            error("a", vec![to("b", 1, None), to("b", 1, None)]),
            "duplicate entry for \"b\""
        );
        assert_eq!(
            error("a", vec![to("b", 101, None)]),
            "individual weights need to be <= 100"
        );
        assert_eq!(
            error("a", vec![to("b", 60, None), to("c", 60, None)]),
            "total weight needs to be <= 100"
        );
        assert_eq!(
            error("a", vec![to("b.$1", 100, None)]),
            "invalid mapping destination: wildcard index out of range in $1"
        );
    }
}
