//! Templates against what jinja2 made of them in Transformers' environment (scripts/make-template-cases).

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail as the test itself may")]

use jinja::{Error, Template, Variable};
use serde_json::Value as Json;

fn cases() -> Json {
    serde_json::from_str(include_str!("cases.json")).unwrap()
}

fn render(template: &str, variables: &Json) -> Result<String, Error> {
    let variables = variables.as_object().unwrap().iter();
    let variables = variables.map(|(name, value)| (name.clone(), Variable::input(value).unwrap()));
    let text = Template::parse(template)?.render(variables, &|_| Err("no clock here".to_owned()))?;
    Ok(text.as_str().to_owned())
}

/// Text, failure and `raise_exception` alike.
#[test]
fn templates_do_what_they_do_in_jinja2() {
    let cases = cases();
    let written = cases["written"].as_array().unwrap();
    assert!(written.len() > 400, "{}", written.len());
    let mut wrong = Vec::new();
    for case in written {
        let (template, expected) = (case[0].as_str().unwrap(), &case[1]);
        let same = match render(template, &cases["variables"]) {
            Ok(text) => expected.as_str() == Some(&text),
            Err(Error::Raised { message }) => expected["raised"].as_str() == Some(&message),
            Err(_) => expected.is_null(),
        };
        if !same {
            wrong.push(format!(
                "{template:?}\n  jinja2 {expected}\n  here   {:?}",
                render(template, &cases["variables"])
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), written.len(), wrong.join("\n"));
}

/// What is drawn is of all kinds, so some of it may be refused here; what is accepted has the same text.
#[test]
fn drawn_templates_have_jinja2s_text_or_are_refused() {
    let cases = cases();
    let drawn = cases["drawn"].as_array().unwrap();
    let (mut wrong, mut refused) = (Vec::new(), Vec::new());
    for case in drawn {
        let (template, expected) = (case[0].as_str().unwrap(), case[1].as_str().unwrap());
        match render(template, &cases["variables"]) {
            Ok(text) if text == expected => {}
            Ok(text) => wrong.push(format!("{template:?}\n  jinja2 {expected:?}\n  here   {text:?}")),
            Err(error) => refused.push(format!("{template:?}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), drawn.len(), wrong.join("\n"));
    assert!(
        refused.len() * 50 < drawn.len(),
        "{} of {} are refused:\n{}",
        refused.len(),
        drawn.len(),
        refused.join("\n")
    );
}
