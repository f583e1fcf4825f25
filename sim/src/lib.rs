//! Placeholder line, replaced by the first real code.
