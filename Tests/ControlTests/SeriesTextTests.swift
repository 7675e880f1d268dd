// The text of a series, as another process wrote it.

import Testing

@testable import Control

@Suite struct SeriesTextTests {
  @Test("A series is a name, or a name with labels whose values stay escaped")
  func accepted() throws {
    let plain = try #require(SeriesText("rig_slow_consumers_total"))
    #expect(plain.name == "rig_slow_consumers_total")
    #expect(plain.labelText == "")
    let text = #"a:b_1{type="say \"hi\" {,} \\ \n",port="in"}"#
    let series = try #require(SeriesText(text))
    #expect(series.name == "a:b_1")
    #expect(series.labels.map(\.name) == ["type", "port"])
    #expect(series.labels.first?.escapedValue == #"say \"hi\" {,} \\ \n"#[...])
    #expect("\(series.name){\(series.labelText)}" == text)
    #expect(SeriesText(#"größe_total"#) == nil)
    #expect(SeriesText(#"a{b="größe"}"#)?.labels.first?.escapedValue == "größe")
  }

  @Test(
    "What a scraper couldn't parse is no series",
    arguments: [
      "", "1a", "{a=\"b\"}", "a b", "a{", "a{}", "a{b}", "a{b=}", "a{b=\"}", "a{b=\"c\"", "a{b=\"c\"}x",
      "a{b=\"c\",}",
      "a{b=\"c\" ,d=\"e\"}", "a{1b=\"c\"}", "a{b:c=\"d\"}", "a{b=\"\\x\"}", "a{b=\"\\", "a{b=\"c\nd\"}",
      "a{b=\"c\",b=\"d\"}", "a 1\nb", "a-b", "a{b='c'}",
    ])
  func refused(_ text: String) {
    #expect(SeriesText(text) == nil)
  }

  @Test("A label can be taken out")
  func split() throws {
    let series = try #require(SeriesText(#"a{b="c",le="0.5",d="e"}"#))
    #expect(series.split(label: "le").value == "0.5")
    #expect(series.split(label: "le").others == #"b="c",d="e""#)
    #expect(series.split(label: "x").value == nil)
    #expect(series.split(label: "x").others == series.labelText)
  }

  @Test(
    "Values are escaped so that they can be read back",
    arguments: ["", "plain", "\\", "\"", "\n", "a\\\"b\n\\n"])
  func escaping(_ value: String) throws {
    let text = SeriesText.labelText([(name: "a", value: value), (name: "b", value: "2")])
    let series = try #require(SeriesText("x{\(text)}"))
    #expect(series.labels.count == 2)
    let back = (series.labels.first?.escapedValue ?? "").replacing("\\\\", with: "\u{1}")
      .replacing("\\n", with: "\n").replacing("\\\"", with: "\"").replacing("\u{1}", with: "\\")
    #expect(back == value)
  }
}
