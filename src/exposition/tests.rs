use super::*;

fn read(text: &str) -> Option<Line<'_>> {
    Line::parse(text.as_bytes())
}

fn sample_of(text: &str) -> Sample<'_> {
    match read(text) {
        Some(Line::Sample(sample)) => sample,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn a_sample_is_taken_apart() {
    let sample = sample_of(r#"cpu_seconds_total{pod="a\"b\\n\n", ns = "x",} 1.5e3 1700000000000"#);
    assert_eq!((sample.name, sample.number(), sample.timestamp), ("cpu_seconds_total", 1500.0, Some("1700000000000")));
    assert_eq!(sample.labels.get("pod").as_deref(), Some("a\"b\\n\n"));
    assert_eq!(sample.labels.get("ns").as_deref(), Some("x"));
    assert_eq!(sample.labels.iter().count(), 2);
    assert_eq!(sample_of("up 1").labels.iter().count(), 0);
    assert!(sample_of("x NaN").number().is_nan());
    assert_eq!(sample_of("x{} +Inf").number(), f64::INFINITY);
    assert_eq!(sample_of(r#"x_bucket{le="1"} 3 # {trace_id="a"} 0.5 1.0"#).timestamp, None);
}

#[test]
fn comments_say_what_a_family_is() {
    assert_eq!(read("# TYPE x counter"), Some(Line::Type { family: "x", kind: "counter" }));
    assert_eq!(read("# HELP x Some text"), Some(Line::About { word: "HELP", family: "x", text: "Some text" }));
    assert_eq!(read("# HELP x"), Some(Line::About { word: "HELP", family: "x", text: "" }));
    assert_eq!((read("# EOF"), read("# so"), read("")), (Some(Line::End), Some(Line::Nothing), Some(Line::Nothing)));
}

#[test]
fn what_is_not_well_formed_is_no_line() {
    for text in [
        "x",
        "x{",
        "x{a=\"b\"",
        "x{a=\"b\" 1",
        "x{a=\"b\"c=\"d\"} 1",
        "x{a=b} 1",
        "x{1a=\"b\"} 1",
        "x{a:b=\"c\"} 1",
        "x one",
        "x 1 soon",
        "x 1 2 3",
        "1x 1",
        "{\"x\"} 1",
        "x{a=\"b\\\"} 1",
        "# TYPE x two words",
        "# TYPE 1x counter",
    ] {
        assert_eq!(read(text), None, "{text}");
    }
    let many: String = (0..65).map(|n| format!("l{n}=\"\",")).collect();
    assert_eq!(read(&format!("x{{{many}}} 1")), None);
    assert_eq!(Line::parse(b"x{a=\"\xff\"} 1"), None);
}

#[test]
fn lines_come_whole_from_pieces_of_any_size() {
    let body = b"one 1\nsecond 2\n\na line that is too long 3\nlast 4";
    for size in 1..body.len() {
        let (mut lines, mut seen) = (Lines::new(10), Vec::new());
        for piece in body.chunks(size) {
            lines.push(piece, |line| seen.push(String::from_utf8_lossy(line).into_owned()));
        }
        lines.finish(|line| seen.push(String::from_utf8_lossy(line).into_owned()));
        assert_eq!(seen, ["one 1", "second 2", "", "last 4"], "pieces of {size}");
        assert_eq!(lines.too_long(), 1);
    }
}

#[test]
fn given_labels_stand_for_those_of_the_same_name() {
    let mut out = Vec::new();
    let read = sample_of(r#"x{pod="a",secret="s",namespace="forged"} 1 5"#);
    sample(&mut out, "x", &read, &[("namespace", "a\"b"), ("node", "n")], |name| name != "secret");
    sample(&mut out, "y", &sample_of("y 2"), &[], |_| true);
    comment(&mut out, "HELP", "x", "two\nlines");
    let text = String::from_utf8(out).expect("text");
    assert_eq!(text, "x{namespace=\"a\\\"b\",node=\"n\",pod=\"a\"} 1 5\ny 2\n# HELP x two lines\n");
}

proptest::proptest! {
    #[test]
    fn nothing_panics(line: Vec<u8>) {
        let _ = Line::parse(&line);
    }

    #[test]
    fn what_is_written_reads_the_same(value: String, number: f64) {
        let mut text = b"x{".to_vec();
        label(&mut text, "a", &value);
        text.extend_from_slice(format!("}} {number}").as_bytes());
        match Line::parse(&text) {
            Some(Line::Sample(sample)) => {
                let read = sample.labels.get("a");
                proptest::prop_assert_eq!(read.as_deref(), Some(value.as_str()));
                let mut again = Vec::new();
                super::sample(&mut again, "x", &sample, &[], |_| true);
                text.push(b'\n');
                proptest::prop_assert_eq!(again, text);
            }
            other => proptest::prop_assert!(false, "{:?}", other),
        }
    }
}
