// The document of the management API and the router say the same: neither has a path or a method that the other hasn't.

import Foundation
import Settings
import Testing

@testable import Control

@Suite(.serialized) struct OpenAPITests {
  private static let methods = ["get", "head", "post", "put", "delete", "patch", "options"]

  private func document(isClosed: Bool = false) throws -> [String: Any] {
    let json = OpenAPIDocument.json(version: "1.2.3", isClosed: isClosed, userField: "user")
    return try #require(try JSONSerialization.jsonObject(with: Data(json)) as? [String: Any])
  }

  private func paths(_ document: [String: Any]) throws -> [String: [String: Any]] {
    try #require(document["paths"] as? [String: [String: Any]])
  }

  @Test("Every path of the router is in the document, and no other")
  func paths() throws {
    let documented = try Set(paths(document()).keys)
    #expect(documented == Set(Routes.templates))
    #expect(Routes.templates.count == documented.count, "a path comes twice")
  }

  @Test("Whatever path a resource takes is one of its templates")
  func templates() {
    let words = Set(Routes.templates.flatMap { $0.split(separator: "/").map(String.init) }) + ["v1", "api"]
    for first in words {
      for second in words {
        for (path, template) in [
          ("/\(first)/\(second)", "/\(first)/\(second)"), ("/\(first)/\(second)/x", "/\(first)/\(second)/{"),
        ] where APIResource(path: path) != nil || SessionResource(path: path) != nil {
          #expect(
            Routes.templates.contains { $0 == template || template.hasSuffix("{") && $0.hasPrefix(template) },
            "\(path)")
        }
      }
    }
  }

  @Test("Every method that the document names is there, and no other")
  func methods() async throws {
    let paths = try paths(document())
    let gateway = try TestGateway()
    try await gateway.served { client in
      for (template, operations) in paths {
        let path = template.replacing(/\{.*\}/, with: "unknown")
        for method in Self.methods {
          let answer = try client.ask(method.uppercased(), path)
          #expect((answer.status == 405) == (operations[method] == nil), "\(method) \(path)")
          #expect(!answer.body.contains("there is nothing at"), "\(method) \(path)")
          guard answer.status == 405 else { continue }
          let allowed = Set(operations.keys).subtracting(["parameters"]).map { $0.uppercased() }
          #expect(Set(answer.header("allow")?.split(separator: ", ").map(String.init) ?? []) == Set(allowed))
        }
      }
    }
  }

  @Test(
    "The document is served; it speaks of a token only where one is demanded, and not for health and metrics")
  func security() async throws {
    let gateway = try TestGateway()
    try await gateway.served { client in
      let answer = try client.get("/openapi.json")
      #expect(answer.status == 200 && answer.header("content-type") == "application/json")
      #expect(answer.body.contains(#""version":"3.0.0-test""#))
      #expect(!answer.body.contains("securitySchemes"))
    }
    let closed = try document(isClosed: true)
    #expect((closed["security"] as? [[String: Any]])?.first?.keys.first == "managementToken")
    for (path, operations) in try paths(closed) {
      for (method, operation) in operations where method != "parameters" {
        let operation = try #require(operation as? [String: Any])
        let isOpen = ["/health", "/livez", "/readyz", "/metrics"].contains(path)
        #expect((operation["security"] as? [Any])?.isEmpty == (isOpen ? true : nil), "\(method) \(path)")
        let answers = try #require(operation["responses"] as? [String: Any])
        #expect((answers["401"] == nil) == isOpen, "\(method) \(path)")
      }
    }
  }

  @Test("Every schema that is referred to is there, and every one that is there is referred to")
  func schemas() throws {
    let json = OpenAPIDocument.json(version: "1", isClosed: false, userField: "user")
    let text = String(decoding: json, as: UTF8.self)
    let schemas = try #require((document()["components"] as? [String: Any])?["schemas"] as? [String: Any])
    let referred = Set(text.matches(of: /#\/components\/schemas\/([A-Za-z]+)/).map { String($0.1) })
    #expect(referred == Set(schemas.keys))
  }

  @Test(
    "14.D20 RIG 1: an endpoint may have a path in place of a path_regex, and needs one of them",
    arguments: [
      "NewUnsecuredAPI", "NewSecuredAPI", "ReplacingUnsecuredAPI", "ReplacingSecuredAPI",
    ])
  func pathAlone(_ name: String) throws {
    var place: Any? = try document()
    for step in [
      "components", "schemas", name, "properties", "version_data", "properties", "default", "properties",
      "endpoints", "items",
    ] {
      place = (place as? [String: Any])?[step]
    }
    let endpoint = try #require(place as? [String: Any])
    #expect(endpoint["required"] as? [String] == ["id", "method"])
    let either = try #require(endpoint["anyOf"] as? [[String: Any]])
    #expect(either.map { $0["required"] as? [String] } == [["path_regex"], ["path"]])
  }

  @Test(
    "Odd ids are taken as what they say, or refused",
    arguments: [
      ("/v3/apis/%", 400), ("/v3/apis/%zz", 400), ("/v3/apis/%ff", 400), ("/v3/apis/%00", 404),
      ("/v3/apis/%2F", 404), ("/v3/apis/a%2Fb", 404), ("/v3/apis/.", 404), ("/v3/apis/..", 404),
      ("/v3/apis/%C3%A9", 404), ("/v3/apis/a%20b?x=%", 404), ("/v3/apis/", 404), ("/v3/apis//", 404),
      ("/v3/sessions/%ff", 400), ("/v3/session-blacklist/%", 400), ("/v3/session-blacklist/%2e%2e", 404),
      ("/v3/connections/%", 405), ("/v3/%61pis", 404), ("//v3/apis", 404), ("/v3/apis?", 200),
    ])
  func oddIDs(_ path: String, _ status: Int) async throws {
    let gateway = try TestGateway()
    try gateway.withoutStateReaders()
    try await gateway.served { client in
      let answer = try client.get(path)
      #expect(answer.status == status, "\(answer.body)")
      if status >= 400 {
        let type = answer.header("content-type")
        #expect(type == "application/problem+json" || type == "application/json")
      }
    }
  }
}
