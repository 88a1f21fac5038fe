//! Values of any kind out of bytes that a test was given. Fewer bytes, and smaller ones, make simpler values, so that
//! proptest finds the simplest that fails.

use std::collections::BTreeMap;

use arbitrary::{Arbitrary, Unstructured};
use jiff::Timestamp;
use serde_json::{Map, Number, Value};

/// Where values come from. It never ends: where the bytes do, all further ones are 0.
pub(crate) struct Source<'a>(pub(crate) Unstructured<'a>);

/// What can be made of bytes.
pub(crate) trait Given: Sized {
    fn given(source: &mut Source<'_>) -> Self;
}

impl<'a> Source<'a> {
    pub(crate) fn given<T: Given>(&mut self) -> T {
        T::given(self)
    }

    pub(crate) fn plain<T: Arbitrary<'a> + Default>(&mut self) -> T {
        self.0.arbitrary().unwrap_or_default()
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0.int_in_range(0..=end - 1).unwrap_or_default()
    }

    pub(crate) fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    fn json(&mut self, depth: usize) -> Value {
        match self.below(if depth == 0 { 5 } else { 7 }) {
            0 => Value::Null,
            1 => Value::Bool(self.plain()),
            2 => self.plain::<i64>().into(),
            3 => Number::from_f64(self.given()).map_or(Value::Null, Value::Number),
            4 => Value::String(self.given()),
            5 => (0..self.below(3)).map(|_| self.json(depth - 1)).collect(),
            _ => Value::Object((0..self.below(3)).map(|_| (self.given(), self.json(depth - 1))).collect()),
        }
    }
}

macro_rules! plain {
    ($($name:ty),*) => {$(
        impl Given for $name {
            fn given(source: &mut Source<'_>) -> Self {
                source.plain()
            }
        }
    )*};
}

plain!(bool, u16, u32, u64, i32);

impl Given for f64 {
    fn given(source: &mut Source<'_>) -> Self {
        let any = Self::from_bits(source.plain());
        // JSON has no other numbers.
        if any.is_finite() { any } else { 0.1 }
    }
}

impl Given for String {
    fn given(source: &mut Source<'_>) -> Self {
        const HARD: [char; 12] = ['"', '\\', '\n', '\r', '\0', '\u{7f}', '\u{2028}', '\u{fffd}', 'é', '🦀', '{', ':'];
        let length = source.below(12);
        let mut one = || if source.plain() { source.one_of(&HARD) } else { source.plain::<char>() };
        (0..length).map(|_| one()).collect()
    }
}

impl Given for Timestamp {
    fn given(source: &mut Source<'_>) -> Self {
        let seconds = source.0.int_in_range(Self::MIN.as_second()..=Self::MAX.as_second()).unwrap_or_default();
        Self::new(seconds, source.below(1_000_000_000) as i32).unwrap_or(Self::MAX)
    }
}

impl Given for Value {
    fn given(source: &mut Source<'_>) -> Self {
        source.json(3)
    }
}

impl Given for Map<String, Value> {
    fn given(source: &mut Source<'_>) -> Self {
        (0..source.below(4)).map(|_| (source.given(), source.given())).collect()
    }
}

impl<T: Given> Given for Option<T> {
    fn given(source: &mut Source<'_>) -> Self {
        if source.plain() { Some(source.given()) } else { None }
    }
}

impl<T: Given> Given for Vec<T> {
    fn given(source: &mut Source<'_>) -> Self {
        (0..source.below(4)).map(|_| source.given()).collect()
    }
}

impl<T: Given> Given for BTreeMap<String, T> {
    fn given(source: &mut Source<'_>) -> Self {
        (0..source.below(4)).map(|_| (source.given(), source.given())).collect()
    }
}
