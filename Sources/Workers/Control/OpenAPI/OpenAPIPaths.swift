// Every path of the management port and what it answers. A test asks the router for each of them, and looks here for each of
// the router's.

enum OpenAPIPaths {
  static let all: [OpenAPIPath] =
    apis("v3") + apis("v2") + messages("v3") + messages("v2") + [responses, responsesOfRIG2]
    + blacklist("v3") + blacklist("v2") + sessions
    + legacy + operation

  // MARK: API definitions

  private static func apis(_ version: String) -> [OpenAPIPath] {
    [
      OpenAPIPath(
        template: "/\(version)/apis",
        operations: [
          OpenAPIOperation(
            method: "get", summary: "All active API definitions, in order of creation",
            answers: [.json(200, "APIs", "The definitions.")]),
          OpenAPIOperation(
            method: "post", summary: "Makes an API definition", bodies: [("application/json", "NewAPI")],
            answers: [
              .json(201, "Done", "Every worker routes by it."), badDefinition,
              .json(409, "Message", "There is an active definition of that id."), .unsupported, unkept,
            ]),
        ]),
      OpenAPIPath(
        template: "/\(version)/apis/{id}", parameter: "The definition's id",
        operations: [
          OpenAPIOperation(
            method: "get", summary: "One active API definition",
            answers: [.json(200, "API", "The definition."), unknown]),
          OpenAPIOperation(
            method: "put", summary: "Lays the members of a whole definition over the one that is there",
            bodies: [("application/json", "ReplacingAPI")],
            answers: [
              .json(200, "Done", "Every worker routes by it."), badDefinition, unknown, .unsupported, unkept,
            ]),
          OpenAPIOperation(
            method: "delete", summary: "Removes an API definition",
            answers: [.empty("No worker routes by it."), unknown, unkept]),
        ]),
    ]
  }

  private static let unknown = OpenAPIOperation.Answer.json(404, "Message", "There is no such definition.")
  private static let badDefinition = OpenAPIOperation.Answer(
    status: 400, description: "What is wrong with the definition, or with the request.",
    contents: [.json("Mistakes"), .problem])
  private static let unkept = OpenAPIOperation.Answer(
    status: 503,
    description: "There is no room for it, STATE_DIR can't take it, or not every worker has confirmed it.",
    contents: [.json("Message"), .problem])

  // MARK: Events

  private static func messages(_ version: String) -> [OpenAPIPath] {
    [
      OpenAPIPath(
        template: "/\(version)/messages",
        operations: [
          OpenAPIOperation(
            method: "post",
            summary:
              "Publishes CloudEvents: one, a batch, or one in binary mode (any type, with ce- headers)",
            bodies: [
              ("application/cloudevents+json", "Event"), ("application/cloudevents-batch+json", "Events"),
              ("application/json", "Event"),
            ],
            answers: [
              .json(202, "Accepted", "The events as they go out."),
              .problem(
                400, "No CloudEvents, or a type that begins with `rig.`; the member or header is named."),
              .unsupported, .busy,
            ])
        ])
    ]
  }

  // MARK: Responses

  static let correlation = "^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$"

  private static let responses = OpenAPIPath(
    template: "/v3/responses",
    operations: [
      OpenAPIOperation(
        method: "post",
        summary:
          "Answers a request that waits for it; the body, its content-type and other headers are the client's answer",
        takesAnyBody: true,
        headers: [("rig-correlation", correlation), ("rig-response-code", "^[2-5][0-9][0-9]$")],
        answers: answersToResponses)
    ])

  private static let responsesOfRIG2 = OpenAPIPath(
    template: "/v2/responses",
    operations: [
      OpenAPIOperation(
        method: "post",
        summary:
          "Answers a request that waits for it with a CloudEvent; with the headers of /v3/responses the body may be anything",
        bodies: [("application/json", "CorrelatedEvent")], answers: answersToResponses + [.unsupported])
    ])

  private static let answersToResponses: [OpenAPIOperation.Answer] = [
    OpenAPIOperation.Answer(
      status: 202, description: "The request has got it.", contents: [.text("text/plain")]),
    .problem(
      400, "A header or member is missing or wrong, or it is an event of the gateway's own; it is named."),
    .problem(404, "No request waits: it is unknown, expired or already answered."), .busy,
  ]

  // MARK: Sessions

  private static func blacklist(_ version: String) -> [OpenAPIPath] {
    [
      OpenAPIPath(
        template: "/\(version)/session-blacklist",
        operations: [
          OpenAPIOperation(
            method: "post", summary: "Kills a session: its tokens are refused, its connections end",
            bodies: [("application/json", "BlacklistEntry")],
            answers: [
              .json(201, "Empty", "Every worker has done it.", headers: ["location"]),
              .problem(400, "A field is wrong; it is named."), .unsupported, .busy,
            ])
        ]),
      OpenAPIPath(
        template: "/\(version)/session-blacklist/{id}", parameter: "The session",
        operations: [
          OpenAPIOperation(
            method: "get", summary: "Whether a session is dead",
            answers: [.json(200, "Empty", "It is."), .problem(404, "It isn't.")])
        ]),
    ]
  }

  private static let offline = OpenAPIOperation.Answer.problem(404, "The user has no connection.")

  private static let sessions = [
    OpenAPIPath(
      template: "/v3/sessions",
      operations: [
        OpenAPIOperation(
          method: "get", summary: "Users that are online",
          answers: [.json(200, "Users", "The users, with their numbers of connections."), .busy])
      ]),
    OpenAPIPath(
      template: "/v3/sessions/{user}", parameter: "The user's name",
      operations: [
        OpenAPIOperation(
          method: "get", summary: "The connections of a user",
          answers: [.json(200, "Connections", "The connections."), offline, .busy]),
        OpenAPIOperation(
          method: "delete", summary: "Closes all connections of a user",
          answers: [.empty("They are closed."), offline, .busy]),
      ]),
    OpenAPIPath(
      template: "/v3/connections/{id}", parameter: "The connection, as the lists have it",
      operations: [
        OpenAPIOperation(
          method: "delete", summary: "Closes one connection",
          answers: [.empty("It is closed."), .problem(404, "There is no such connection."), .busy])
      ]),
  ]

  /// RIG 1's paths. Without a MANAGEMENT_TOKEN they want a JWT whose claim scopes.rg.actions names the action.
  private static let legacy = [
    OpenAPIPath(
      template: "/rg/sessions",
      operations: [
        OpenAPIOperation(
          method: "get", summary: "Users of SESSION_ROLE (unset: user) that are online, as in RIG 1",
          answers: [.json(200, "UserNames", "The users."), forbidden, .busy])
      ]),
    OpenAPIPath(
      template: "/rg/sessions/{user}", parameter: "The user's name",
      operations: [
        OpenAPIOperation(
          method: "get", summary: "The devices of a user with what their tokens claim, as in RIG 1",
          answers: [
            .json(200, "Devices", "The devices; none of a user that isn't online."), forbidden, .busy,
          ])
      ]),
    OpenAPIPath(
      template: "/rg/connections/{session}", parameter: "The session: the tokens' claim jti",
      operations: [
        OpenAPIOperation(
          method: "delete", summary: "Ends a session until its tokens have expired, as in RIG 1",
          answers: [
            .empty("Its connections, if it has any, are closed, and its tokens refused."), forbidden, .busy,
          ])
      ]),
  ]

  private static let forbidden = OpenAPIOperation.Answer.problem(403, "The token doesn't allow it.")

  // MARK: Operation

  private static let operation = [
    OpenAPIPath(
      template: "/health",
      operations: [
        OpenAPIOperation(
          method: "get", summary: "Whether the gateway serves, in a word",
          answers: [
            .init(status: 200, description: "It does.", contents: [.text("text/plain")]),
            .problem(503, "The parts that are missing."),
          ], isOpen: true)
      ]),
    probe("/livez", "Whether the control worker lives"),
    probe("/readyz", "Whether the gateway serves, part by part"),
    OpenAPIPath(
      template: "/metrics",
      operations: [
        OpenAPIOperation(
          method: "get", summary: "Prometheus text, or OpenMetrics where `accept` asks for it",
          answers: [
            .init(
              status: 200, description: "The numbers.",
              contents: [.text("text/plain"), .text("application/openmetrics-text")])
          ], isOpen: true)
      ]),
    OpenAPIPath(
      template: "/openapi.json",
      operations: [
        OpenAPIOperation(
          method: "get", summary: "This document", answers: [.json(200, "Document", "OpenAPI 3.1.")])
      ]),
  ]

  private static func probe(_ path: String, _ summary: String) -> OpenAPIPath {
    OpenAPIPath(
      template: path,
      operations: [
        OpenAPIOperation(
          method: "get", summary: summary,
          answers: [
            .json(200, "Health", "It does."), .json(503, "Health", "It doesn't; the parts say why."),
          ], isOpen: true)
      ])
  }
}
