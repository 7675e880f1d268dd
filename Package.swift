// swift-tools-version: 6.2
import PackageDescription

let strict: [SwiftSetting] = [.treatAllWarnings(as: .error)]

/// A library or executable target of ours; warnings are errors everywhere.
func library(_ name: String, path: String, _ dependencies: [Target.Dependency] = []) -> Target {
  .target(name: name, dependencies: dependencies, path: path, swiftSettings: strict)
}

func executable(_ name: String, path: String, _ dependencies: [Target.Dependency] = []) -> Target {
  .executableTarget(name: name, dependencies: dependencies, path: path, swiftSettings: strict)
}

func tests(_ name: String, _ dependencies: [Target.Dependency], exclude: [String] = []) -> Target {
  .testTarget(
    name: name, dependencies: dependencies, path: "Tests/\(name)", exclude: exclude, swiftSettings: strict)
}

let nioCore: Target.Dependency = .product(name: "NIOCore", package: "swift-nio")
let nioPosix: Target.Dependency = .product(name: "NIOPosix", package: "swift-nio")
let nioEmbedded: Target.Dependency = .product(name: "NIOEmbedded", package: "swift-nio")
let nioHTTP1: Target.Dependency = .product(name: "NIOHTTP1", package: "swift-nio")
let nioHTTP2: Target.Dependency = .product(name: "NIOHTTP2", package: "swift-nio-http2")
let nioHPACK: Target.Dependency = .product(name: "NIOHPACK", package: "swift-nio-http2")
let logging: Target.Dependency = .product(name: "Logging", package: "swift-log")
let deque: Target.Dependency = .product(name: "DequeModule", package: "swift-collections")
let argumentParser: Target.Dependency = .product(
  name: "ArgumentParser", package: "swift-argument-parser")

let package = Package(
  name: "rig",
  products: [
    .executable(name: "rig-supervisor", targets: ["Supervisor"]),
    .executable(name: "rig-connections", targets: ["Connections"]),
    .executable(name: "rig-streams", targets: ["Kafka"]),
    .executable(name: "rig-control", targets: ["Control"]),
    .executable(name: "rig-proxies", targets: ["Proxies"]),
    .executable(name: "rig-devbroker", targets: ["DevBroker"]),
    .executable(name: "rig-ringtool", targets: ["RingTool"]),
    .executable(name: "rig-identitybench", targets: ["IdentityBench"]),
    .executable(name: "rig-routerbench", targets: ["RouterBench"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
    .package(url: "https://github.com/apple/swift-nio-http2", from: "1.46.0"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
  ],
  targets: [
    .target(name: "CLinux", path: "Sources/System/CLinux"),
    .systemLibrary(
      name: "CRdKafka", path: "Sources/System/CRdKafka", pkgConfig: "rdkafka",
      providers: [.apt(["librdkafka-dev"])]),
    .systemLibrary(
      name: "CSystemd", path: "Sources/System/CSystemd", pkgConfig: "libsystemd",
      providers: [.apt(["libsystemd-dev"])]),
    .systemLibrary(
      name: "CZlib", path: "Sources/System/CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),
    .systemLibrary(
      name: "COpenSSL", path: "Sources/System/COpenSSL", pkgConfig: "openssl",
      providers: [.apt(["libssl-dev"])]),

    library("IPC", path: "Sources/IPC", ["CLinux"]),
    library(
      "Settings", path: "Sources/Settings",
      [.product(name: "Yams", package: "Yams")]),
    executable(
      "Supervisor", path: "Sources/Supervisor",
      ["IPC", "Settings", "CLinux", "CSystemd"]),
    library("Kit", path: "Sources/Libraries/Kit", ["IPC", "Settings", "CLinux", logging]),
    library("Links", path: "Sources/Libraries/Links", ["IPC", "Kit", deque]),
    library("TLS", path: "Sources/Libraries/TLS", ["Kit", "COpenSSL", nioCore]),
    library(
      "HTTP", path: "Sources/Libraries/HTTP",
      ["Kit", "Links", "TLS", "IPC", "Settings", "CLinux", logging, nioCore, nioPosix, nioHTTP1, nioHTTP2]),
    library("Tokens", path: "Sources/Libraries/Tokens", ["Kit", "Links", "Settings", "COpenSSL", logging]),
    library("APIs", path: "Sources/Libraries/APIs", ["Kit"]),
    executable(
      "Connections", path: "Sources/Workers/Connections",
      [
        "Kit", "Links", "HTTP", "Tokens", "APIs", "IPC", "Settings", "COpenSSL", "CZlib", logging, deque,
        nioCore,
        nioPosix, nioHTTP1,
      ]),
    executable(
      "Kafka", path: "Sources/Workers/Kafka",
      ["Kit", "Links", "IPC", "Settings", "CLinux", "CRdKafka", logging, deque]),
    executable(
      "Control", path: "Sources/Workers/Control",
      ["Kit", "Links", "HTTP", "Tokens", "APIs", "IPC", "Settings", logging, nioCore, nioPosix, nioHTTP1]),
    executable(
      "Proxies", path: "Sources/Workers/Proxies",
      [
        "Kit", "Links", "HTTP", "TLS", "IPC", "Settings", logging, deque, nioCore, nioPosix, nioHTTP2,
      ]),
    executable(
      "DevBroker", path: "Sources/Tools/DevBroker", ["CRdKafka", "CLinux", argumentParser]),

    executable("RingTool", path: "Sources/Tools/RingTool", ["IPC", "CLinux"]),
    executable("RouterBench", path: "Sources/Tools/RouterBench", ["APIs", "Kit"]),
    executable("IdentityBench", path: "Sources/Tools/IdentityBench", ["Tokens", "Kit", "COpenSSL"]),

    library("TestSupport", path: "Tests/Support"),
    // What runs, and what is run by: built as one target, since a build takes one name. No tests, no benchmarks.
    library(
      "Release", path: "Sources/Release",
      ["Supervisor", "Connections", "Kafka", "Control", "Proxies", "DevBroker"]),

    tests("IPCTests", ["IPC", "CLinux", "RingTool", "TestSupport"]),
    tests("SettingsTests", ["Settings", "TestSupport"]),
    tests("SupervisorTests", ["Supervisor", "IPC", "Settings", "CLinux", "TestSupport"]),
    tests("KitTests", ["Kit", "Links", "IPC", "Settings", "TestSupport", logging]),
    tests("LinksTests", ["Links", "Kit", "IPC", "Settings", "TestSupport", logging]),
    tests(
      "TokensTests", ["Tokens", "Kit", "Links", "Settings", "TestSupport", "COpenSSL", logging],
      exclude: ["make_fixtures.py"]),
    tests("APIsTests", ["APIs", "Kit", "TestSupport"]),
    tests("TLSTests", ["TLS", "Kit", "TestSupport", "COpenSSL", nioCore, nioEmbedded]),
    tests(
      "HTTPTests",
      [
        "HTTP", "TLS", "Kit", "IPC", "Settings", "TestSupport", "CLinux", nioCore, nioPosix, nioHTTP1,
        nioHTTP2, nioEmbedded,
      ]),
    tests(
      "ConnectionsTests",
      [
        "Connections", "APIs", "Kit", "Links", "HTTP", "Tokens", "IPC", "Settings", "TestSupport", logging,
        nioCore, nioPosix, nioHTTP1, nioEmbedded,
      ]),
    tests(
      "ProxiesTests",
      [
        "Proxies", "HTTP", "TLS", "Kit", "Links", "IPC", "Settings", "TestSupport", "CLinux", logging,
        nioCore, nioPosix, nioHTTP1, nioHTTP2,
      ]),
    tests("KafkaTests", ["Kafka", "Kit", "Links", "IPC", "Settings", "TestSupport"]),
    tests(
      "ControlTests",
      [
        "Control", "APIs", "Kit", "Links", "HTTP", "Tokens", "IPC", "Settings", "TestSupport", "COpenSSL",
        logging,
        nioCore, nioPosix, nioHTTP1,
      ]),
    tests(
      "EndToEnd",
      ["IPC", "Settings", "TestSupport", "CLinux", "CRdKafka", "COpenSSL", "CZlib", nioCore, nioHPACK],
      exclude: ["OpenAPI"]),
  ]
)
