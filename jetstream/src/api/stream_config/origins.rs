//! What mirrors and sources may be.

use menes_protocol::subject;

use super::{check_mapping, invalid, is_stream_name};
use crate::api::{ApiError, name};
use crate::stream::StreamConfig;
use crate::stream::config::{StreamSource, SubjectTransform};

/// Refuses origins that make no sense, whatever other streams there are.
pub(super) fn check(config: &StreamConfig) -> Result<(), ApiError> {
    if let Some(mirror) = &config.mirror {
        check_mirror(config, mirror)?;
    }
    if !config.sources.is_empty() && config.allow_msg_schedules {
        return Err(ApiError::source_with_schedules());
    }
    for (index, source) in config.sources.iter().enumerate() {
        check_source(source, &config.sources[..index])?;
    }
    let origins = config.mirror.iter().chain(&config.sources);
    for external in origins.filter_map(|origin| origin.external.as_ref()) {
        let (api, deliver) = (external.api.as_bytes(), external.deliver.as_bytes());
        if !deliver.is_empty() && !subject::is_literal(deliver) {
            return Err(ApiError::external_delivery_wildcards(&external.deliver));
        }
        if api.is_empty() {
            continue;
        }
        if !subject::is_literal(api) {
            let api = crate::api::json::quote(&external.api);
            return Err(invalid(format_args!(
                "stream external api prefix {api} must be a valid subject without wildcards"
            )));
        }
        if api == b"$JS.API" {
            return Err(ApiError::external_api_overlap(&external.api, "$JS.API"));
        }
    }
    Ok(())
}

fn check_mirror(config: &StreamConfig, mirror: &StreamSource) -> Result<(), ApiError> {
    let refusals = [
        (config.first_seq > 0, ApiError::mirror_with_first_seq()),
        (
            !config.subjects.is_empty(),
            ApiError::mirror_with_subjects(),
        ),
        (!config.sources.is_empty(), ApiError::mirror_with_sources()),
        (config.allow_msg_counter, ApiError::mirror_with_counters()),
        (config.allow_atomic, ApiError::mirror_with_atomic()),
        (config.allow_batched, ApiError::mirror_with_batch()),
        (
            config.allow_msg_schedules,
            ApiError::mirror_with_schedules(),
        ),
        (
            !is_consumer_sound(mirror),
            ApiError::mirror_consumer_invalid(),
        ),
        (
            !mirror.filter_subject.is_empty() && !mirror.subject_transforms.is_empty(),
            ApiError::mirror_with_filter_and_transforms(),
        ),
        (
            config.subject_delete_marker_ttl > 0,
            invalid("subject delete markers forbidden on mirrors"),
        ),
    ];
    if let Some((_, refusal)) = refusals.into_iter().find(|(refused, _)| *refused) {
        return Err(refusal);
    }
    for (index, SubjectTransform { src, dest }) in mirror.subject_transforms.iter().enumerate() {
        if !src.is_empty() && !subject::is_valid(src.as_bytes()) {
            let why = format_args!("invalid subject {src}");
            return Err(ApiError::mirror_transform_source(why));
        }
        check_mapping(src, dest).map_err(ApiError::mirror_transform_destination)?;
        let others = mirror.subject_transforms[..index].iter();
        if others
            .into_iter()
            .any(|other| subject::overlaps(all(src), all(&other.src)))
        {
            return Err(ApiError::mirror_filters_overlap());
        }
    }
    if mirror.external.is_none() && !is_stream_name(&mirror.name) {
        return Err(ApiError::mirror_name_invalid());
    }
    Ok(())
}

fn check_source(source: &StreamSource, before: &[StreamSource]) -> Result<(), ApiError> {
    if !is_stream_name(&source.name) {
        return Err(ApiError::source_name_invalid());
    }
    let id = crate::stream::source_id(source);
    if before
        .iter()
        .any(|other| crate::stream::source_id(other) == id)
    {
        return Err(ApiError::source_duplicate());
    }
    if !source.filter_subject.is_empty() && !source.subject_transforms.is_empty() {
        return Err(ApiError::source_with_filter_and_transforms());
    }
    for SubjectTransform { src, dest } in &source.subject_transforms {
        if !src.is_empty() && !subject::is_valid(src.as_bytes()) {
            let why = format_args!("invalid subject {src}");
            return Err(ApiError::source_transform_source(why));
        }
        check_mapping(src, dest).map_err(ApiError::source_transform_destination)?;
    }
    for (index, transform) in source.subject_transforms.iter().enumerate() {
        let overlaps = source
            .subject_transforms
            .iter()
            .enumerate()
            .any(|(other, theirs)| {
                other != index && subject::is_subset(all(&transform.src), all(&theirs.src))
            });
        if overlaps {
            return Err(ApiError::source_filters_overlap());
        }
    }
    if !is_consumer_sound(source) {
        return Err(ApiError::source_consumer_invalid());
    }
    let feeds = |other: &StreamSource| {
        let (ours, theirs) = (source.consumer.as_ref(), other.consumer.as_ref());
        ours.zip(theirs).is_some_and(|(a, b)| a.name == b.name)
            && source.name == other.name
            && source.external.as_ref().map(|way| &way.api)
                == other.external.as_ref().map(|way| &way.api)
    };
    if before.iter().any(feeds) {
        return Err(ApiError::source_consumer_duplicate());
    }
    Ok(())
}

/// Compares a configuration with those of its origins that can be seen, and takes over what it has
/// from them.
///
/// # Errors
/// 10030, 10046, or in pedantic mode 10157.
pub fn follow<'a>(
    config: &mut StreamConfig,
    pedantic: bool,
    find: impl Fn(&str) -> Option<&'a StreamConfig>,
) -> Result<(), ApiError> {
    let size = config.max_msg_size;
    let is_smaller =
        |origin: &StreamConfig| size > 0 && origin.max_msg_size > 0 && size < origin.max_msg_size;
    let seen = |source: &StreamSource| {
        let is_here = source.external.is_none();
        is_here.then(|| find(&source.name)).flatten()
    };
    if let Some(origin) = config.mirror.as_ref().and_then(seen) {
        if is_smaller(origin) {
            return Err(ApiError::mirror_max_msg_size_too_small());
        }
        if pedantic && config.mirror_direct != origin.allow_direct {
            return Err(ApiError::pedantic(
                "origin stream has direct get set, mirror has it disabled",
            ));
        }
        config.mirror_direct = origin.allow_direct;
    }
    if config.sources.iter().filter_map(seen).any(is_smaller) {
        return Err(ApiError::source_max_msg_size_too_small());
    }
    Ok(())
}

fn all(filter: &str) -> &[u8] {
    if filter.is_empty() {
        b">"
    } else {
        filter.as_bytes()
    }
}

/// Whether the consumer that feeds a copy, if one is named, can: it decides itself where to begin
/// and what to deliver.
fn is_consumer_sound(source: &StreamSource) -> bool {
    let Some(consumer) = &source.consumer else {
        return true;
    };
    name::is_valid(&consumer.name)
        && subject::is_literal(consumer.deliver_subject.as_bytes())
        && source.opt_start_seq == 0
        && source.opt_start_time.is_none()
        && source.filter_subject.is_empty()
}
