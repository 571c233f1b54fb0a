//! Arguments of a call.

use crate::error::{Error, Result};
use crate::value::Value;

#[derive(Default, Clone)]
pub(crate) struct Args {
    pub(crate) positional: Vec<Value>,
    pub(crate) named: Vec<(String, Value)>,
}

impl Args {
    pub(crate) fn of(positional: Vec<Value>) -> Self {
        Self { positional, named: Vec::new() }
    }

    /// The arguments of a function with these parameters, in their order.
    pub(crate) fn bind<const N: usize>(self, function: &str, names: [&str; N]) -> Result<[Option<Value>; N]> {
        if self.positional.len() > N {
            return Err(Error::failed(format!(
                "{function} takes at most {N} arguments, not {}",
                self.positional.len()
            )));
        }
        let mut values = [const { None }; N];
        for (place, value) in values.iter_mut().zip(self.positional) {
            *place = Some(value);
        }
        for (name, value) in self.named {
            let place = names.iter().position(|known| *known == name);
            match place.map(|place| &mut values[place]) {
                Some(place @ None) => *place = Some(value),
                Some(Some(_)) => return Err(Error::failed(format!("{function} got several values for `{name}`"))),
                None => return Err(Error::failed(format!("{function} has no argument `{name}`"))),
            }
        }
        Ok(values)
    }
}
