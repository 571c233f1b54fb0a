//! What a template may use, and what it knows of its input.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail as the test itself may")]

use jinja::{Error, Template, Text, Variable};
use serde_json::json;

fn render(template: &str) -> Result<Text, Error> {
    let content = json!("A<b>c ß");
    let variables = [
        ("x".to_owned(), Variable::input(&content).unwrap()),
        ("own".to_owned(), Variable::own("<s>")),
        ("m".to_owned(), Variable::input(&json!({"k": content, "n": 5, "l": ["p", "q"]})).unwrap()),
    ];
    Template::parse(template)?.render(variables, &|_| Ok("today".to_owned()))
}

/// The text with what came from the input in brackets.
fn marked(template: &str) -> String {
    let text = render(template).unwrap();
    let (mut out, mut at) = (String::new(), 0);
    for range in text.input_ranges() {
        out += &format!("{}[{}]", &text.as_str()[at..range.start], &text.as_str()[range.clone()]);
        at = range.end;
    }
    out + &text.as_str()[at..]
}

#[test]
fn text_of_the_input_stays_known_as_such() {
    for (template, expected) in [
        ("<b>{{ x }}</b>", "<b>[A<b>c ß]</b>"),
        ("{{ own }}{{ x }}{{ own }}", "<s>[A<b>c ß]<s>"),
        ("{{ 'a' + x ~ 'b' }}", "a[A<b>c ß]b"),
        ("{{ x[1:4] }}|{{ x[0] }}|{{ x[::-1] }}|{{ x | first }}", "[<b>]|[A]|[ß c>b<A]|[A]"),
        ("{{ x | upper }}|{{ x | title }}|{{ ('-' ~ x) | lower }}", "[A<B>C SS]|[A<B>c SS]|-[a<b>c ß]"),
        ("{{ x | replace('b', 'z') }}|{{ 'b-b' | replace('b', x) }}", "[A<]z[>c ß]|[A<b>c ß]-[A<b>c ß]"),
        ("{{ x.split('b') | join('_') }}|{{ ' '.join(m.l) }}", "[A<]_[>c ß]|[p] [q]"),
        ("{{ x | trim }}{{ (' ' ~ x ~ ' ') | trim }}|{{ x.strip('Aß') }}", "[A<b>c ßA<b>c ß]|[<b>c ]"),
        ("{{ '%s!' % x }}|{{ '{}?'.format(x) }}|{{ '%s' | format(x) }}", "[A<b>c ß]!|[A<b>c ß]?|[A<b>c ß]"),
        ("{{ [x] }}|{{ m.l | tojson }}|{{ {'a': x} }}", "['[A<b>c ß]']|[\"[p]\", \"[q]\"]|{'a': '[A<b>c ß]'}"),
        ("{% set y %}-{{ x }}-{% endset %}{{ y | upper }}", "-[A<B>C SS]-"),
        ("{% macro f(a) %}({{ a }}){% endmacro %}{{ f(x) }}{{ f('x') }}", "([A<b>c ß])(x)"),
        ("{% for c in x[:2] %}{{ c }}.{% endfor %}", "[A].[<]."),
        ("{% filter upper %}a{{ x[:1] }}{% endfilter %}", "A[A]"),
        ("{{ '%-4s|' % x[:1] }}{{ x[:1].center(3, '*') }}{{ '=' * 2 }}{{ x[:1] * 2 }}", "[A]   |*[A]*==[AA]"),
        ("{{ x | e }}", "[A&lt;b&gt;c ß]"),
        ("{{ m.n }}{{ 'b' in x }}{{ strftime_now('%Y') }}{{ x | length }}", "5Truetoday7"),
    ] {
        assert_eq!(marked(template), expected, "{template}");
    }
}

/// Each of them ends by itself, with an error that says why, on a small stack.
#[test]
fn a_template_without_end_ends() {
    let within = |template: &'static str| {
        let thread = std::thread::Builder::new().stack_size(1 << 20);
        let thread = thread.spawn(move || render(template).map(|text| text.as_str().len()));
        thread.unwrap().join().unwrap()
    };
    let deep_expression: &'static str = format!("{{{{ {}1{} }}}}", "(".repeat(5000), ")".repeat(5000)).leak();
    let deep_list: &'static str = format!("{{{{ {}{} }}}}", "[".repeat(5000), "]".repeat(5000)).leak();
    let deep_not: &'static str = format!("{{{{ {} 1 }}}}", "not ".repeat(5000)).leak();
    let deep_minus: &'static str = format!("{{{{ {}1 }}}}", "-".repeat(5000)).leak();
    let long_dots: &'static str = format!("{{{{ x{} }}}}", ".a".repeat(100_000)).leak();
    let long_sum: &'static str = format!("{{{{ 1{} }}}}", " + 1".repeat(100_000)).leak();
    let long_filters: &'static str = format!("{{{{ x{} }}}}", " | trim".repeat(100_000)).leak();
    let long_else: &'static str = format!("{{{{ 1 {} }}}}", "if 0 else 1 ".repeat(100_000)).leak();
    let long_calls: &'static str = format!("{{{{ x{} }}}}", "()".repeat(100_000)).leak();
    let deep_blocks: &'static str = format!("{}{}", "{% if 1 %}".repeat(5000), "{% endif %}".repeat(5000)).leak();
    for (template, says) in [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "works for too long"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "nests too deeply"),
        ("{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}", "nests too deeply"),
        (
            "{% set ns = namespace(t='xxxxxxxx') %}{% for a in range(99) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}",
            "64 MiB",
        ),
        (
            "{% set ns = namespace(t=[1]) %}{% for a in range(99) %}{% set ns.t = ns.t + ns.t %}{% endfor %}",
            "million items",
        ),
        ("{% set ns = namespace(t=[]) %}{% for a in range(999) %}{% set ns.t = [ns.t] %}{% endfor %}", "too deeply"),
        ("{{ 'x' * 99999999999 }}", "64 MiB"),
        ("{{ '%99999999999d' % 1 }}", "64 MiB"),
        ("{{ '%.99999999999f' % 1 }}", ""),
        ("{{ '{:99999999999}'.format(1) }}", "64 MiB"),
        ("{{ 'x'.ljust(99999999999) }}", "64 MiB"),
        ("{{ 'x' | center(99999999999) }}", "64 MiB"),
        ("{{ 'x' | indent(99999999999, true) }}", "64 MiB"),
        ("{{ [1] * 99999999999 }}", "million items"),
        ("{{ [1] | batch(99999999999, 0) | list }}", "million items"),
        ("{{ [1] | slice(99999999999) | list }}", "million items"),
        ("{{ range(99999999999) }}", "range"),
        ("{{ 9 ** 9 ** 9 ** 9 }}", "too large"),
        ("{{ 99999999999999999999 * 99999999999999999999 * 9 }}", "too large"),
        ("{{ 'x' | replace('', 'y' * 9999999) | replace('y', 'z' * 9999999) }}", "64 MiB"),
        ("{{ x | tojson(indent=99999999999) }}", ""),
        ("{% for a in [[1]] recursive %}{{ loop([a]) }}{% endfor %}", "nests too deeply"),
        (deep_expression, "too deeply"),
        (deep_list, "too deeply"),
        (deep_not, "too deeply"),
        (deep_minus, "too deeply"),
        (deep_blocks, "too deeply"),
        (long_dots, ""),
        (long_sum, ""),
        (long_filters, ""),
        (long_else, ""),
        (long_calls, ""),
    ] {
        let result = within(template);
        let short = template.chars().take(60).collect::<String>();
        match result {
            Ok(length) => assert!(says.is_empty() && length < 1 << 20, "{short}: {length} bytes"),
            Err(error) => assert!(error.to_string().contains(says), "{short}: {error}"),
        }
    }
}

/// Reading takes time by the template's length; by its square, this would take minutes.
#[test]
fn long_templates_are_read() {
    for part in
        ["{# a #}", "{% if 1 %}{% endif %}", "{{ 1 }}", "{ a } ", "{% raw %}{{{% endraw %}", "{% set a = 1 %}\n"]
    {
        Template::parse(&part.repeat(100_000)).unwrap();
    }
}

#[test]
fn errors_name_the_line() {
    for (template, message) in [
        ("a\n{{ 'x' + 1 }}", "line 2: "),
        ("a\n\n{% if %}", "line 3: "),
        ("{% for a in [1] %}\n\n{{ a.b.c }}\n{% endfor %}", "line 3: 'int object' has no attribute 'b'"),
        ("{{ raise_exception('only this') }}", "only this"),
        ("\n{% import 'x' as y %}", "line 2: `import` needs other templates"),
        ("\n\n{{ x | nope }}", "line 3: no filter named 'nope'"),
    ] {
        let error = render(template).unwrap_err().to_string();
        assert!(error.starts_with(message), "{template}: {error}");
    }
}
