//! The configuration grammar of nats-server: text in, a tree of values with their places out.
//!
//! Reading a file and looking up the environment are left to the caller, so that the grammar can
//! be tested and fuzzed on its own.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use nom::IResult;
use nom::Parser;
use nom::bytes::complete::{take_till, take_while, take_while1};
use nom::character::complete::char as literal;
use nom::combinator::{opt, recognize};
use thiserror::Error;

/// Deepest nesting of maps, arrays and includes.
const MAX_DEPTH: usize = 32;

/// Where something stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// File name as it was given.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// Why a configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{place}: {what}")]
pub struct ConfigError {
    /// Where.
    pub place: Place,
    /// What is wrong and what would be right.
    pub what: String,
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Its first character.
    pub place: Place,
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// The key as written.
    pub key: String,
    /// Where the key stands.
    pub place: Place,
    /// Its value.
    pub node: Node,
    /// Whether another value refers to it as `$key`.
    pub referred: bool,
}

/// A map in the order written; of equal keys only the last is kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map {
    /// Its fields.
    pub fields: Vec<Field>,
}

impl Map {
    /// The field with this key, upper and lower case alike.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Field> {
        self.fields
            .iter()
            .find(|field| field.key.eq_ignore_ascii_case(key))
    }

    fn set(&mut self, field: Field) {
        match self.fields.iter_mut().find(|old| old.key == field.key) {
            Some(old) => *old = field,
            None => self.fields.push(field),
        }
    }
}

/// A configuration value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `{ key: value }`
    Map(Map),
    /// `[a, b]`
    Array(Vec<Node>),
    /// Text, quoted or bare, and dates.
    String(String),
    /// A whole number, its unit applied.
    Integer(i64),
    /// A number with a point.
    Float(f64),
    /// `true`, `yes`, `on` and their opposites, unquoted.
    Bool(bool),
}

impl Value {
    /// What kind of value it is, for messages.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Map(_) => "a map",
            Self::Array(_) => "a list",
            Self::String(_) => "text",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Bool(_) => "true or false",
        }
    }
}

/// What the grammar asks of the world.
pub trait Environment {
    /// An environment variable.
    fn variable(&self, name: &str) -> Option<String>;

    /// The text of an included file, `path` as written in `from`, and the name to report it by.
    ///
    /// # Errors
    /// Why it cannot be read, for people.
    fn include(&self, from: &str, path: &str) -> Result<(String, String), String>;
}

/// Parses a configuration.
///
/// # Errors
/// The first mistake, with its place.
pub fn parse(text: &str, file: &str, environment: &dyn Environment) -> Result<Map, ConfigError> {
    let mut parser = Parsing {
        text,
        at: 0,
        file: Arc::from(file),
        environment,
        scopes: Vec::new(),
        resolving: Vec::new(),
        depth: 0,
        counted: Cell::new((0, 0)),
    };
    parser.document()
}

struct Parsing<'a> {
    text: &'a str,
    at: usize,
    file: Arc<str>,
    environment: &'a dyn Environment,
    scopes: Vec<Map>,
    /// Environment variables being resolved, to notice circles.
    resolving: Vec<String>,
    depth: usize,
    /// Line ends before a position, so that places need no counting from the start.
    counted: Cell<(usize, usize)>,
}

impl<'a> Parsing<'a> {
    fn document(&mut self) -> Result<Map, ConfigError> {
        self.skip_blank();
        let braced = self.peek() == Some('{');
        if braced {
            self.bump();
        }
        let map = self.map_body(if braced { Some('}') } else { None })?;
        self.skip_blank();
        match self.peek() {
            None => Ok(map),
            Some(other) => Err(self.error(format!("unexpected {other:?} after the end"))),
        }
    }

    fn map_body(&mut self, end: Option<char>) -> Result<Map, ConfigError> {
        self.enter()?;
        self.scopes.push(Map::default());
        let result = loop {
            self.skip_separators();
            match self.peek() {
                None if end.is_none() => break Ok(()),
                None => break Err(self.error("the map is not closed, '}' is missing")),
                Some(c) if Some(c) == end => {
                    self.bump();
                    break Ok(());
                }
                Some('}') => break Err(self.error("'}' closes nothing")),
                Some(_) => {
                    if let Err(error) = self.field() {
                        break Err(error);
                    }
                }
            }
        };
        self.depth -= 1;
        let map = self.scopes.pop().unwrap_or_default();
        result.map(|()| map)
    }

    fn field(&mut self) -> Result<(), ConfigError> {
        let place = self.place();
        let key = match self.peek() {
            Some(quote @ ('"' | '\'')) => self.quoted(quote)?,
            _ => self.bare_key()?,
        };
        if key == "include" {
            self.skip_spaces();
            if !matches!(self.peek(), Some('=' | ':')) {
                return self.include(&place);
            }
        }
        self.skip_blank_to_value();
        if matches!(self.peek(), Some('=' | ':')) {
            self.bump();
            self.skip_blank_to_value();
        }
        let node = self.value()?;
        if let Some(scope) = self.scopes.last_mut() {
            scope.set(Field {
                key,
                place,
                node,
                referred: false,
            });
        }
        Ok(())
    }

    fn include(&mut self, place: &Place) -> Result<(), ConfigError> {
        let path = match self.peek() {
            Some(quote @ ('"' | '\'')) => self.quoted(quote)?,
            _ => self.bare_text()?,
        };
        let (name, text) = self
            .environment
            .include(&self.file, &path)
            .map_err(|what| ConfigError {
                place: place.clone(),
                what,
            })?;
        if self.depth >= MAX_DEPTH {
            return Err(self.error("includes are nested too deeply"));
        }
        let mut inner = Parsing {
            text: &text,
            at: 0,
            file: Arc::from(name),
            environment: self.environment,
            scopes: std::mem::take(&mut self.scopes),
            resolving: Vec::new(),
            depth: self.depth + 1,
            counted: Cell::new((0, 0)),
        };
        let result = inner.document();
        self.scopes = inner.scopes;
        let map = result?;
        if let Some(scope) = self.scopes.last_mut() {
            for field in map.fields {
                scope.set(field);
            }
        }
        Ok(())
    }

    fn value(&mut self) -> Result<Node, ConfigError> {
        let place = self.place();
        let value = match self.peek() {
            None => return Err(self.error("a value is missing")),
            Some('{') => {
                self.bump();
                Value::Map(self.map_body(Some('}'))?)
            }
            Some('[') => {
                self.bump();
                Value::Array(self.array_body()?)
            }
            Some(quote @ ('"' | '\'')) => Value::String(self.quoted(quote)?),
            Some('(') => Value::String(self.block()?),
            Some('\n' | ';' | ',' | '}' | ']') => {
                return Err(self.error("a value is missing"));
            }
            Some('$') => return self.variable(place),
            Some(_) => {
                let text = self.bare_text()?;
                scalar(&text).map_err(|what| ConfigError {
                    place: place.clone(),
                    what,
                })?
            }
        };
        Ok(Node { value, place })
    }

    fn array_body(&mut self) -> Result<Vec<Node>, ConfigError> {
        self.enter()?;
        let mut items = Vec::new();
        let mut separated = true;
        loop {
            self.skip_blank();
            match self.peek() {
                None => return Err(self.error("the list is not closed, ']' is missing")),
                Some(']') => {
                    self.bump();
                    self.depth -= 1;
                    return Ok(items);
                }
                Some(',') => {
                    if separated {
                        return Err(self.error("the list has an empty element"));
                    }
                    self.bump();
                    separated = true;
                }
                Some(_) => {
                    items.push(self.value()?);
                    separated = false;
                }
            }
        }
    }

    fn variable(&mut self, place: Place) -> Result<Node, ConfigError> {
        let text = self.bare_text()?;
        let name = text.get(1..).unwrap_or("");
        // A bcrypt hash begins with a dollar sign too.
        if name.starts_with("2a$") || name.starts_with("2b$") || name.starts_with("2y$") {
            return Ok(Node {
                value: Value::String(text),
                place,
            });
        }
        for scope in self.scopes.iter_mut().rev() {
            if let Some(field) = scope.fields.iter_mut().find(|field| field.key == name) {
                field.referred = true;
                return Ok(Node {
                    value: field.node.value.clone(),
                    place,
                });
            }
        }
        if self.resolving.iter().any(|open| open == name) {
            return Err(ConfigError {
                place,
                what: format!("variable reference cycle for '{name}'"),
            });
        }
        let Some(found) = self.environment.variable(name) else {
            let what = format!(
                "variable reference for '{name}' on line {} can not be found",
                place.line
            );
            return Err(ConfigError { place, what });
        };
        // The text of a variable is itself a value and may refer to others.
        let wrapped = format!("value = {found}");
        let mut resolving = self.resolving.clone();
        resolving.push(name.to_owned());
        let mut inner = Parsing {
            text: &wrapped,
            at: 0,
            file: Arc::from(format!("${name}")),
            environment: self.environment,
            scopes: Vec::new(),
            resolving,
            depth: self.depth + 1,
            counted: Cell::new((0, 0)),
        };
        let map = inner.document()?;
        match map.fields.into_iter().next() {
            Some(field) => Ok(Node {
                value: field.node.value,
                place,
            }),
            None => Ok(Node {
                value: Value::String(String::new()),
                place,
            }),
        }
    }

    fn quoted(&mut self, quote: char) -> Result<String, ConfigError> {
        let start = self.place();
        self.bump();
        let mut text = String::new();
        loop {
            match self.peek() {
                None => {
                    return Err(ConfigError {
                        place: start,
                        what: "the text is not closed".into(),
                    });
                }
                Some(c) if c == quote => {
                    self.bump();
                    return Ok(text);
                }
                Some('\\') if quote == '"' => {
                    self.bump();
                    text.push(self.escape()?);
                }
                Some(c) => {
                    self.bump();
                    text.push(c);
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, ConfigError> {
        let c = self.peek();
        let escaped = match c {
            Some('t') => '\t',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('"') => '"',
            Some('\\') => '\\',
            Some('x') => {
                let digits = self.text.get(self.at + 1..self.at + 3);
                let code = digits.and_then(|d| u8::from_str_radix(d, 16).ok());
                let Some(code) = code else {
                    return Err(self.error("\\x wants two hexadecimal digits"));
                };
                self.at += 2;
                char::from(code)
            }
            _ => {
                return Err(
                    self.error("unknown escape, only \\t \\n \\r \\\" \\\\ \\xHH are known")
                );
            }
        };
        self.bump();
        Ok(escaped)
    }

    /// `(` to a line that holds only `)`: text as it stands.
    fn block(&mut self) -> Result<String, ConfigError> {
        let start = self.place();
        self.bump();
        let rest = self.rest();
        let mut offset = 0;
        for line in rest.split_inclusive('\n') {
            if line.trim() == ")" {
                let text = rest.get(..offset).unwrap_or("");
                self.at += offset + line.len();
                return Ok(text.trim_start_matches(['\r', '\n']).to_owned());
            }
            offset += line.len();
        }
        Err(ConfigError {
            place: start,
            what: "the block is not closed by a line with ')'".into(),
        })
    }

    fn bare_key(&mut self) -> Result<String, ConfigError> {
        let rest = self.rest();
        let parsed: IResult<&str, &str> = take_till(|c: char| {
            c.is_whitespace() || matches!(c, '=' | ':' | '{' | '}' | '[' | ']' | ',' | ';' | '#')
        })
        .parse(rest);
        match parsed {
            Ok((_, key)) if !key.is_empty() => {
                self.at += key.len();
                Ok(key.to_owned())
            }
            _ => {
                let found = self.peek().map_or_else(String::new, |c| c.to_string());
                Err(self.error(format!("expected a key, found {found:?}")))
            }
        }
    }

    fn bare_text(&mut self) -> Result<String, ConfigError> {
        let mut text = String::new();
        loop {
            match self.peek() {
                None => break,
                Some(c) if c.is_whitespace() || matches!(c, ',' | ';' | ']' | '}') => break,
                Some('\\') => {
                    self.bump();
                    text.push(self.escape()?);
                }
                Some(c) => {
                    self.bump();
                    text.push(c);
                }
            }
        }
        if text.is_empty() {
            Err(self.error("a value is missing"))
        } else {
            Ok(text)
        }
    }

    fn skip_spaces(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t')) {
            self.bump();
        }
    }

    /// Spaces, comments and line ends.
    fn skip_blank(&mut self) {
        loop {
            match self.peek() {
                Some(c) if c.is_whitespace() => self.bump(),
                Some('#') => self.skip_line(),
                Some('/') if self.rest().starts_with("//") => self.skip_line(),
                _ => return,
            }
        }
    }

    /// Between a key and its value only a map or list may stand on a later line.
    fn skip_blank_to_value(&mut self) {
        self.skip_spaces();
        let back = self.at;
        self.skip_blank();
        if self.at != back && !matches!(self.peek(), Some('{' | '[' | '=' | ':')) {
            self.at = back;
        }
    }

    fn skip_separators(&mut self) {
        loop {
            self.skip_blank();
            match self.peek() {
                Some(',' | ';') => self.bump(),
                _ => return,
            }
        }
    }

    fn skip_line(&mut self) {
        let len = self.rest().find('\n').unwrap_or_else(|| self.rest().len());
        self.at += len;
    }

    fn enter(&mut self) -> Result<(), ConfigError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error(format!("nested more than {MAX_DEPTH} deep")));
        }
        Ok(())
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) {
        self.at += self.peek().map_or(0, char::len_utf8);
    }

    fn place(&self) -> Place {
        let (known, lines) = self.counted.get();
        let (from, lines) = if known <= self.at {
            (known, lines)
        } else {
            (0, 0)
        };
        let lines = lines
            + self
                .text
                .get(from..self.at)
                .unwrap_or("")
                .matches('\n')
                .count();
        self.counted.set((self.at, lines));
        let before = self.text.get(..self.at).unwrap_or("");
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        let line = lines + 1;
        let column = before.get(line_start..).unwrap_or("").chars().count() + 1;
        Place {
            file: self.file.clone(),
            line,
            column,
        }
    }

    fn error(&self, what: impl Into<String>) -> ConfigError {
        ConfigError {
            place: self.place(),
            what: what.into(),
        }
    }
}

/// A bare word as a number, a truth or text.
fn scalar(text: &str) -> Result<Value, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => return Ok(Value::Bool(true)),
        "false" | "no" | "off" => return Ok(Value::Bool(false)),
        _ => {}
    }
    if let Ok((rest, digits)) = integer_digits(text) {
        if rest.is_empty() {
            return digits
                .parse()
                .map(Value::Integer)
                .map_err(|_| format!("{text} does not fit 64 bits"));
        }
        if let Some(factor) = unit(rest) {
            return digits
                .parse::<i64>()
                .ok()
                .and_then(|number| number.checked_mul(factor))
                .map(Value::Integer)
                .ok_or_else(|| format!("{text} does not fit 64 bits"));
        }
        if let Ok(("", _)) = fraction(rest)
            && let Ok(number) = text.parse()
        {
            return Ok(Value::Float(number));
        }
    }
    Ok(Value::String(text.to_owned()))
}

fn integer_digits(text: &str) -> IResult<&str, &str> {
    recognize((opt(literal('-')), take_while1(|c: char| c.is_ascii_digit()))).parse(text)
}

fn fraction(text: &str) -> IResult<&str, &str> {
    recognize((
        literal('.'),
        take_while1(|c: char| c.is_ascii_digit()),
        take_while(|c: char| c.is_ascii_digit()),
    ))
    .parse(text)
}

/// The factor of a size unit: one letter counts in thousands, with `b` or `ib` in 1024s.
fn unit(text: &str) -> Option<i64> {
    let lower = text.to_ascii_lowercase();
    let power = match lower.chars().next()? {
        'k' => 1,
        'm' => 2,
        'g' => 3,
        't' => 4,
        'p' => 5,
        'e' => 6,
        _ => return None,
    };
    match lower.get(1..)? {
        "" => Some(1000_i64.pow(power)),
        "b" | "i" | "ib" => Some(1024_i64.pow(power)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Fake {
        variables: BTreeMap<&'static str, &'static str>,
        files: BTreeMap<&'static str, &'static str>,
    }

    impl Environment for Fake {
        fn variable(&self, name: &str) -> Option<String> {
            self.variables.get(name).map(|text| (*text).to_owned())
        }
        fn include(&self, _from: &str, path: &str) -> Result<(String, String), String> {
            match self.files.get(path) {
                Some(text) => Ok((path.to_owned(), (*text).to_owned())),
                None => Err(format!("{path} cannot be read")),
            }
        }
    }

    fn read(text: &str) -> Map {
        parse(text, "t.conf", &Fake::default()).expect("a valid configuration")
    }

    fn value(text: &str) -> Value {
        read(text).get("k").expect("the key k").node.value.clone()
    }

    fn wrong(text: &str) -> String {
        parse(text, "t.conf", &Fake::default())
            .expect_err("an invalid configuration")
            .to_string()
    }

    #[test]
    fn every_separator_is_accepted() {
        for text in [
            "k = 1",
            "k: 1",
            "k 1",
            "{k: 1}",
            "{\"k\": 1}",
            "'k'=1;",
            "k 1, j 2",
        ] {
            assert_eq!(value(text), Value::Integer(1), "{text}");
        }
    }

    #[test]
    fn units_count_in_thousands_or_1024s() {
        assert_eq!(value("k = 1K"), Value::Integer(1000));
        assert_eq!(value("k = 1MB"), Value::Integer(1_048_576));
        assert_eq!(value("k = 2GiB"), Value::Integer(2 << 30));
        assert_eq!(value("k = -3"), Value::Integer(-3));
        assert_eq!(value("k = 1.5"), Value::Float(1.5));
        assert!(wrong("k = 9999999999g").contains("64 bits"));
    }

    #[test]
    fn words_that_are_no_numbers_stay_text() {
        for text in [
            "127.0.0.1:4222",
            "1h30m",
            "nats://a:b@c:1",
            "2016-05-04T18:53:41Z",
        ] {
            assert_eq!(
                value(&format!("k = {text}")),
                Value::String(text.to_owned())
            );
        }
        assert_eq!(value("k = \"true\""), Value::String("true".into()));
        assert_eq!(value("k = YES"), Value::Bool(true));
        assert_eq!(value("k = $2a$11$abc"), Value::String("$2a$11$abc".into()));
    }

    #[test]
    fn maps_lists_comments_and_blocks() {
        let map = read(
            "# one\nk {\n a: [1, 2\n 3] // two\n b = 'x # y'\n}\nj = (\nraw { text\n)\nm {}\n",
        );
        let Value::Map(inner) = &map.get("k").expect("k").node.value else {
            panic!("no map")
        };
        let Value::Array(items) = &inner.get("a").expect("a").node.value else {
            panic!("no list")
        };
        assert_eq!(items.len(), 3);
        assert_eq!(
            inner.get("b").expect("b").node.value,
            Value::String("x # y".into())
        );
        assert_eq!(
            map.get("j").expect("j").node.value,
            Value::String("raw { text\n".into())
        );
        assert_eq!(
            map.get("m").expect("m").node.value,
            Value::Map(Map::default())
        );
    }

    #[test]
    fn variables_come_from_outer_maps_then_the_environment() {
        let mut fake = Fake::default();
        fake.variables.insert("PORT", "42");
        fake.variables.insert("DEEP", "$PORT");
        fake.variables.insert("LOOP", "$LOOP");
        let map =
            parse("a = 7\nk { b = $a }\nc = $PORT\nd = $DEEP", "t.conf", &fake).expect("valid");
        assert!(map.get("a").expect("a").referred);
        assert_eq!(map.get("c").expect("c").node.value, Value::Integer(42));
        assert_eq!(map.get("d").expect("d").node.value, Value::Integer(42));
        assert!(
            parse("x = $LOOP", "t.conf", &fake)
                .expect_err("a circle")
                .what
                .contains("cycle")
        );
        assert_eq!(
            wrong("\nx = $NONE"),
            "t.conf:2:5: variable reference for 'NONE' on line 2 can not be found"
        );
    }

    #[test]
    fn includes_are_merged_where_they_stand() {
        let mut fake = Fake::default();
        fake.files.insert("users.conf", "users = [ {user: a} ]");
        let map = parse(
            "authorization {\n include users.conf\n timeout 2\n}",
            "t.conf",
            &fake,
        )
        .expect("valid");
        let Value::Map(inner) = &map.get("authorization").expect("it").node.value else {
            panic!("no map")
        };
        assert!(inner.get("users").is_some() && inner.get("timeout").is_some());
        assert!(wrong("include './nowhere'").contains("cannot be read"));
    }

    #[test]
    fn the_last_of_equal_keys_wins() {
        assert_eq!(value("k = 1\nk = 2"), Value::Integer(2));
    }

    #[test]
    fn mistakes_name_their_place() {
        assert_eq!(
            wrong("k = [1,,2]"),
            "t.conf:1:8: the list has an empty element"
        );
        assert!(wrong("k = \"abc").starts_with("t.conf:1:5: "));
        assert!(wrong("k {\n a = 1\n").contains("'}' is missing"));
        assert!(wrong("k = \"\\q\"").contains("unknown escape"));
        assert!(wrong("k =\n").contains("a value is missing"));
        assert!(wrong(&format!("k = {}", "[".repeat(100))).contains("nested more than 32 deep"));
    }

    proptest! {
        #[test]
        fn any_text_gives_a_tree_or_an_error(text in "\\PC{0,200}") {
            drop(parse(&text, "t.conf", &Fake::default()));
        }
    }
}
