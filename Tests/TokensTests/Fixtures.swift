// Made by make_fixtures.py with joserfc and cryptography (Python). Don't edit.
//
// ALL KEYS HERE ARE TEST KEYS: everybody knows them.

enum Fixtures {
  static let secret = "test secret, sixty-four bytes long so that it fits HS512 as well"
  static let rsaPublicPEM = """
    -----BEGIN PUBLIC KEY-----
    MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA7uqz+L5BtUfb4sKdzWJF
    Tpu33B3sdQAVSAA/0z+BcjaeADa88rZqzCDI8hnEvmgNbElxAgXwlLU9ZZSIc415
    P4/3kejNUQYEoOdhELj8gYiFiuBGEsVoWYn6bSbhfLkZwa3YMTVDgZhCDTVndSY3
    S8Jrs8js6uN5mJ4UggNjBQumAiSDXXibRNnJ5B2AADic6st4chstGbEceiAIMHSK
    2IOE0H2bLoGWXBbmH2kNkVL5Oh79MqMU6BO45vOXxk7nRTjVscd0TydwlsaAvlfJ
    iiVZoUyfaranY0pnDRjFtnd2T09hDiVpUS0fgzKwcSiMJFQlACfnrjAcDz0zIhXj
    NwIDAQAB
    -----END PUBLIC KEY-----
    """
  static let rsaOtherPublicPEM = """
    -----BEGIN PUBLIC KEY-----
    MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAntZ3UA2N4J9EN0QZoIYI
    MmFsfYXE8MP7ruXvRU5YMYBn8D8+swv3OhmxkFkpoRdyqvrTIFzdlpQXou0E/qqf
    iSnwSGHlgJDCDM/Eu4zUm3FmKnyk6/agayV6+Aqi0bFHUsVn0lGI5zVwU9F+A8KN
    cbodMLKdkxC/2h3CcdThrK4tdiYAX7YDuKKYz34sSSdpAal1jjz/n1knHZthN4oL
    cvxxT06w4nWIa/xArW0FQSxw8nHUdAe4LSS7RbGbJqqgSfcm9jfS0aNriJx2T5tY
    CQJaUUH1pUVNBrj5N8dWO+NWy16NZPZw049iSyEekrn9tvxcSpFxx3SX/U8GiPqX
    OwIDAQAB
    -----END PUBLIC KEY-----
    """
  static let p256PublicPEM = """
    -----BEGIN PUBLIC KEY-----
    MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE/ASzf3eZXHBqjlLalRfCOz8nHwsT
    GU+Uugu/k3kDDupgZWZlFa8Zqgc7+J1DsAxq0zdQMShySW3otO7ju0j6EQ==
    -----END PUBLIC KEY-----
    """
  static let p384PublicPEM = """
    -----BEGIN PUBLIC KEY-----
    MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEScipZ7OG8MnxRbYxprKWX/t2Ylk0NTcH
    ff2zqDa8/2QRIXn3epGmVF5yV44bHpOqzp99kjqy5q82URIvu5no261gbs66d1S6
    +UAL6VZcioFCjhqaaVBN8QEsV+K19/0X
    -----END PUBLIC KEY-----
    """
  static let p521PublicPEM = """
    -----BEGIN PUBLIC KEY-----
    MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQAKk3hwJpl94m+SjosvayzYyE8COoB
    9/mM6MZAf9GHCfFB1TBUFi9VjDh5lBhgr2OvJOmrfUex+I8En/wd5/yRwskBgA5k
    651Ec67CAj1TW3dCL91zKRq2NTXBPYM1/7XjD+n+++K5P/Cp0f85PP0TfLTk3DWu
    tTfYq0/6z5hsvcGy1pk=
    -----END PUBLIC KEY-----
    """
  static let ed25519PublicPEM = """
    -----BEGIN PUBLIC KEY-----
    MCowBQYDK2VwAyEAYf2Ov9Iq8OC7zDYmXuDS9ksgEXt016Gw4/vh1CbmITo=
    -----END PUBLIC KEY-----
    """
  static let ed448PublicPEM = """
    -----BEGIN PUBLIC KEY-----
    MEMwBQYDK2VxAzoA+Xs5Ccq3qGEI1CP/4qUyhuYq3PTdswACZyomvYVKuzl9lhQ9
    jg+3HaVZOOM3c/k6KDUXFWy0nXWA
    -----END PUBLIC KEY-----
    """
  static let rsaPKCS1PEM = """
    -----BEGIN RSA PUBLIC KEY-----
    MIIBCgKCAQEA7uqz+L5BtUfb4sKdzWJFTpu33B3sdQAVSAA/0z+BcjaeADa88rZq
    zCDI8hnEvmgNbElxAgXwlLU9ZZSIc415P4/3kejNUQYEoOdhELj8gYiFiuBGEsVo
    WYn6bSbhfLkZwa3YMTVDgZhCDTVndSY3S8Jrs8js6uN5mJ4UggNjBQumAiSDXXib
    RNnJ5B2AADic6st4chstGbEceiAIMHSK2IOE0H2bLoGWXBbmH2kNkVL5Oh79MqMU
    6BO45vOXxk7nRTjVscd0TydwlsaAvlfJiiVZoUyfaranY0pnDRjFtnd2T09hDiVp
    US0fgzKwcSiMJFQlACfnrjAcDz0zIhXjNwIDAQAB
    -----END RSA PUBLIC KEY-----
    """
  static let rsaCertificatePEM = """
    -----BEGIN CERTIFICATE-----
    MIICoTCCAYmgAwIBAgIBATANBgkqhkiG9w0BAQsFADATMREwDwYDVQQDDAhURVNU
    IEtFWTAgFw0yMDAxMDEwMDAwMDBaGA8yMTE5MTIwODAwMDAwMFowEzERMA8GA1UE
    AwwIVEVTVCBLRVkwggEiMA0GCSqGSIb3DQEBAQUAA4IBDwAwggEKAoIBAQDu6rP4
    vkG1R9viwp3NYkVOm7fcHex1ABVIAD/TP4FyNp4ANrzytmrMIMjyGcS+aA1sSXEC
    BfCUtT1llIhzjXk/j/eR6M1RBgSg52EQuPyBiIWK4EYSxWhZifptJuF8uRnBrdgx
    NUOBmEINNWd1JjdLwmuzyOzq43mYnhSCA2MFC6YCJINdeJtE2cnkHYAAOJzqy3hy
    Gy0ZsRx6IAgwdIrYg4TQfZsugZZcFuYfaQ2RUvk6Hv0yoxToE7jm85fGTudFONWx
    x3RPJ3CWxoC+V8mKJVmhTJ9qtqdjSmcNGMW2d3ZPT2EOJWlRLR+DMrBxKIwkVCUA
    J+euMBwPPTMiFeM3AgMBAAEwDQYJKoZIhvcNAQELBQADggEBAFp7QIVvW6ASA4bs
    QBXKhSEhLbj7WaaRA7wzdLQxmWmbksg84fbz/JajXumNGu2LhC6SOtx9/+CWPLn6
    wTAVREDwtQQqMqt+ptEPoHqgs0Cxr62LY80pW1GJpmUH6ZLVsu7h21J98jFXtgW8
    SdyJUFn1hc2zUEhLVFMAJlKRb3rUIXXhsHsCDPX6UnSOJJ/nJ53/XsN/8gWQedGa
    4lei/Ws2nKuZeMIsQtYb38GgsDTgQ1p1S6TiX4HuVscVX+Zsyppm5whSbgdaCotw
    JjDyWUPw5Qn2daAG8yVftOPSIwmsnEYyEwnNeZgVtN75dT46w7oFCColVyFjz8Qt
    AL1pLuc=
    -----END CERTIFICATE-----
    """
  /// TEST KEY
  static let rsaPrivatePEM = """
    -----BEGIN PRIVATE KEY-----
    MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQDu6rP4vkG1R9vi
    wp3NYkVOm7fcHex1ABVIAD/TP4FyNp4ANrzytmrMIMjyGcS+aA1sSXECBfCUtT1l
    lIhzjXk/j/eR6M1RBgSg52EQuPyBiIWK4EYSxWhZifptJuF8uRnBrdgxNUOBmEIN
    NWd1JjdLwmuzyOzq43mYnhSCA2MFC6YCJINdeJtE2cnkHYAAOJzqy3hyGy0ZsRx6
    IAgwdIrYg4TQfZsugZZcFuYfaQ2RUvk6Hv0yoxToE7jm85fGTudFONWxx3RPJ3CW
    xoC+V8mKJVmhTJ9qtqdjSmcNGMW2d3ZPT2EOJWlRLR+DMrBxKIwkVCUAJ+euMBwP
    PTMiFeM3AgMBAAECggEAG5gdXpFljXErQwQvWFVio92gXVqna4FYSTnzeov51h3b
    dIgzR+UsbenWIQA7lQeiOpY7kybpzoMlquHTkLpk/U5neFa8aqtDRZeebQwF6KrC
    ocjyzvWLQ9bdMauCnPZ+tGabyF3ahNFNGlwcrY8oZnuiF4sRXLUWijtX1bGxHMKD
    14aoJcUYKsw1CLAjhjHtEtTufkby4nbU/w28ygYP1bupp1ZDJ3Kt8UkGL31sZZvW
    cpohv03Dhm11qnnaH3OdJFWhAyhY9LcpkrVYIdVAe2vZsVJwPub5/7k2TiAED+3F
    +3AVgGWzsNqaBwpxOjDo93s7+hXlvHd8zMgJwXXBAQKBgQD+QbkS1S15Des4GAcU
    79U7rBv05REK4ppWoYhciS/voT5AtgjVxnM88n79zhDl6fm2KNczOCgZBn5+R6ed
    INVcj43ORsYNmOnMqsGJ8QBYSYrwtECE5kfhCuy90oyx/az66IUTo3EfmIi5o/Ck
    A6zUiXuLdCcrbDHKEn7Q8IkZoQKBgQDwjg4bBO/jOLkX7BwjVJEVxs1pYMDcfy6C
    uibOEYD4QJO0pbXCAvuiGwdxhaq57VO2ptaivjS4urk2Blp6q4D2WfFgIwi/a+Ba
    ZnEYHAeAj8cD9yTaNnIr5XKEI3h6LYXfyRImnpbtu5YBb9BydFsB3KG9CVi4Y9Fd
    EkU4QBY91wKBgQC+q5TZ7aoDPQ/nagVtiwmyjTgN5/Zm3lZ1nv9+vZaIMrhXmOt5
    PTBQRV48gVskv9j25Ru1Gmjfk4IquxuUdvnqRvFF/scpjUHPrUIkauoiS0x5hANa
    ZsMCncm59Hp0RFODefnKJ2h/FEl8RdgBd4wVeuB+TOXO531TF5mooKl/4QKBgHtd
    vuoobAYxrusP0ZZk5ksuu2WRkxcBuo6cfQ4td+DY7Wc1nLM06GvIRNb5YAceKVKA
    2Y540Xzzdcy5EWnbzrWIhvtwvCm/Xz29T763kTljgwMLmkC2r3LHpyURM9YkxoVw
    DvjzWB/vlgyClXo9JfcceW4C/xcBSfvbRNiGNWHdAoGAXN44+s+koDxJjJqUaDCV
    GLJ5Qkqi3hcVw8zaIToU1XxaQ2oFB0/TSUxNiSKixw5wfu3J/R7EiNJhoouk0mpF
    thxjgoW1+MTPbSsnO/O7byIyT6atshsuX20CO9wBZchnVKv98EWVWRqncW/65ivU
    NXUdwcGao76cQB2M7/Gb7o8=
    -----END PRIVATE KEY-----
    """
  /// TEST KEY
  static let rsaTraditionalPEM = """
    -----BEGIN RSA PRIVATE KEY-----
    MIIEowIBAAKCAQEA7uqz+L5BtUfb4sKdzWJFTpu33B3sdQAVSAA/0z+BcjaeADa8
    8rZqzCDI8hnEvmgNbElxAgXwlLU9ZZSIc415P4/3kejNUQYEoOdhELj8gYiFiuBG
    EsVoWYn6bSbhfLkZwa3YMTVDgZhCDTVndSY3S8Jrs8js6uN5mJ4UggNjBQumAiSD
    XXibRNnJ5B2AADic6st4chstGbEceiAIMHSK2IOE0H2bLoGWXBbmH2kNkVL5Oh79
    MqMU6BO45vOXxk7nRTjVscd0TydwlsaAvlfJiiVZoUyfaranY0pnDRjFtnd2T09h
    DiVpUS0fgzKwcSiMJFQlACfnrjAcDz0zIhXjNwIDAQABAoIBABuYHV6RZY1xK0ME
    L1hVYqPdoF1ap2uBWEk583qL+dYd23SIM0flLG3p1iEAO5UHojqWO5Mm6c6DJarh
    05C6ZP1OZ3hWvGqrQ0WXnm0MBeiqwqHI8s71i0PW3TGrgpz2frRmm8hd2oTRTRpc
    HK2PKGZ7oheLEVy1Foo7V9WxsRzCg9eGqCXFGCrMNQiwI4Yx7RLU7n5G8uJ21P8N
    vMoGD9W7qadWQydyrfFJBi99bGWb1nKaIb9Nw4Ztdap52h9znSRVoQMoWPS3KZK1
    WCHVQHtr2bFScD7m+f+5Nk4gBA/txftwFYBls7DamgcKcTow6Pd7O/oV5bx3fMzI
    CcF1wQECgYEA/kG5EtUteQ3rOBgHFO/VO6wb9OURCuKaVqGIXIkv76E+QLYI1cZz
    PPJ+/c4Q5en5tijXMzgoGQZ+fkennSDVXI+NzkbGDZjpzKrBifEAWEmK8LRAhOZH
    4QrsvdKMsf2s+uiFE6NxH5iIuaPwpAOs1Il7i3QnK2wxyhJ+0PCJGaECgYEA8I4O
    GwTv4zi5F+wcI1SRFcbNaWDA3H8ugromzhGA+ECTtKW1wgL7ohsHcYWque1TtqbW
    or40uLq5NgZaequA9lnxYCMIv2vgWmZxGBwHgI/HA/ck2jZyK+VyhCN4ei2F38kS
    Jp6W7buWAW/QcnRbAdyhvQlYuGPRXRJFOEAWPdcCgYEAvquU2e2qAz0P52oFbYsJ
    so04Def2Zt5WdZ7/fr2WiDK4V5jreT0wUEVePIFbJL/Y9uUbtRpo35OCKrsblHb5
    6kbxRf7HKY1Bz61CJGrqIktMeYQDWmbDAp3JufR6dERTg3n5yidofxRJfEXYAXeM
    FXrgfkzlzud9UxeZqKCpf+ECgYB7Xb7qKGwGMa7rD9GWZOZLLrtlkZMXAbqOnH0O
    LXfg2O1nNZyzNOhryETW+WAHHilSgNmOeNF883XMuRFp2861iIb7cLwpv189vU++
    t5E5Y4MDC5pAtq9yx6clETPWJMaFcA7481gf75YMgpV6PSX3HHluAv8XAUn720TY
    hjVh3QKBgFzeOPrPpKA8SYyalGgwlRiyeUJKot4XFcPM2iE6FNV8WkNqBQdP00lM
    TYkioscOcH7tyf0exIjSYaKLpNJqRbYcY4KFtfjEz20rJzvzu28iMk+mrbIbLl9t
    AjvcAWXIZ1Sr/fBFlVkap3Fv+uYr1DV1HcHBmqO+nEAdjO/xm+6P
    -----END RSA PRIVATE KEY-----
    """
  /// TEST KEY
  static let rsaEncryptedPEM = """
    -----BEGIN ENCRYPTED PRIVATE KEY-----
    MIIFNTBfBgkqhkiG9w0BBQ0wUjAxBgkqhkiG9w0BBQwwJAQQrJeNPM1V3a065ZTS
    agaW0gICCAAwDAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEE3KedJ3bq7s60De
    kjT4x/YEggTQrFhxyeK9p+YIV5ahoKemKOzw670FjwqC1JY/NOesjpB2bf9J8t9M
    dJYWLL3ZhD0kIBHvLDMeTL4xbe+ZJ3VfzNEpjZHIuNXH23MvJbc6OXsQXIugVThM
    dkgrJr15bpSrZaTTbKUvDd0VS9qSl6b5WmiIcs0Nep+MdxEXATnBaCjslgbEyjc8
    KWqXvyvUI5iAuovUzuenCmly6rXFksQGCS8COcM/Xr2t29qdJknFz4YtAoKq97uE
    +G6gDYHF9Uj1+UGWg5DrAhzRjowzg3cisNLTbnwgFZqwQt5tPQFN86hc70jFKnLf
    cfA5muS4IJNrpHfhiK7Uu+AX0cOIF2clwSuYHk8Rd6pk9r5qAI7Oj0sDN+bZUsth
    mjS5LZzdJzyjAE6EETLEaPGakcuzoh23WG6NN6+xbkGhWxgcgDwP7zKF0qA6aTA+
    Xzkhoe8KAgEeYhPGZbSpz7PizBUkY0dwhQhamD8T/wxKORXTd0gi07pJMrDbsXBa
    ZwTsjfyC9cihIzTAEaEYTLiyV5E+hU/cWnOayUtwAOQt+j8DuCqm0WQR8BiKXYY+
    d1Vnnu2VQa/32TMkKV1+oYaaKcWLq1y2Kp1N9Lya/pD4ae5oBs0gjoNcPPf6qFx1
    GlFsiWrGjyEy/K6uN2xK+2UEyeZ7eareTu8kOeZ+89TC/LX/h8+XPVEGID8MeFtP
    kN+zdazGRNfBplZSkzTVlHoP8H6CJ0bimQ+DPBbwnzwUwAv7v50kIiKw/Hc8fxFO
    rXnkEAngMSzgjK/+zQN9KElqAUIEmLscRqu/Yj4s85rdgwpaQh9sOti1cfbKDOqj
    tPr6ZI+alVu5DnYV3ByxdrHW6WPrAFhBojMladlxx/OnxxCdKPk/hZ6MByn93bWV
    h472TKLODCOoWxaquDjeSLR+OFk6TMAM2SMQqnUctLLHxm3i8zNUWjWKMBk41JrR
    vzu50NGv9DOtZ6rDktV/weXttX7dT3owq4idkqZu5gFEv42jhlJ4XMFGU+kkqdSQ
    Pae4TcTR74wxtLHNKa9V/+ToshkEuJMqCUPCTqlrhR7meZs8zDy4JPl7iEMZxL+T
    VboNviN5+9kskwdOkaiZQvRPGcKEDaMjrd3vxus2ZXCnS6vixqqZWdzA3x40BriB
    IMUu9pYYWcl4L8o5yra9Gjr73NzCBfeKHkXwDNeCiS5TwmBIuiBY7lJgKBKHMQOE
    gtGj8gW0ERr1uuw+q7EZ2IZTN1g+RVOHhVnjJFynC5vokUa3G5sua0KRffKYRJcX
    nP8aisJURLlpUNEHgaPQRS8EWV7DGi/+18Fvdc8GEyYAOca9WcOKW6x/mR+DQWM+
    Jmm8unn7cLz38KwU8NdL+V3nzfn5x7/k3S61EYNQrwgwI4+qpLEYcmQhobJEMvLW
    jT6lLpbixal/lZRffvBbQyHKeLRJH2GFsCRHJaPDwjhseRrNAxwlXowi14baSxDM
    +p3b2OqWdXBgq9iPYizIRhqbDkNHabsO6y8V52EUtKGWOK2R7XQmo/KTLVrMlRSe
    cRZS+wA9kzb4kAREg5hkOIJ68XOfj4fIswQG3NNGDZgPS2UZ/vQnUX8YeYV6zcWh
    TxQIql+iQwaJ0UGfYRSjch9kjdNSXBktXV3C5hnqsSDfxKTqPZRmw38=
    -----END ENCRYPTED PRIVATE KEY-----
    """
  /// TEST KEY
  static let p256TraditionalPEM = """
    -----BEGIN EC PRIVATE KEY-----
    MHcCAQEEILgbd404rpMb+vFwG5vBDl6hVYr8+but9uLwBzeBA8OyoAoGCCqGSM49
    AwEHoUQDQgAE/ASzf3eZXHBqjlLalRfCOz8nHwsTGU+Uugu/k3kDDupgZWZlFa8Z
    qgc7+J1DsAxq0zdQMShySW3otO7ju0j6EQ==
    -----END EC PRIVATE KEY-----
    """
  /// TEST KEY
  static let ed25519PrivatePEM = """
    -----BEGIN PRIVATE KEY-----
    MC4CAQAwBQYDK2VwBCIEIM7duq9BO8zzcHPTp1VjRQ15m+6OK18xk1bK4eOWMbJZ
    -----END PRIVATE KEY-----
    """
  /// Too short.
  static let rsa1024PublicPEM = """
    -----BEGIN PUBLIC KEY-----
    MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCWVJp/hK0J0ye7EJfMbgDgHSNT
    HBJVRjM99SUd3h81kQYbKUv5tfPVcM1fta9fudpojOForGKV5tCDwNw3eJAB9ehY
    mx9jbXTylekpgmKkahUtJlXwmkHAcRk45Pj7TTuctSBm+Mpgkj1hhkEKDEeIN2MQ
    pfWhUawz7ot2eyk33wIDAQAB
    -----END PUBLIC KEY-----
    """
  /// Not a curve of tokens here.
  static let secp256k1PublicPEM = """
    -----BEGIN PUBLIC KEY-----
    MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAEbYKHbmsh8RVFyRjFFfIQYf+vLxEyDb/c
    +9NFdLlQmM1pmtTyIyTdYQ8TlEN/OErheVXlGpaIivghSUjT2E+B2g==
    -----END PUBLIC KEY-----
    """
  static let tokenHS256 = """
    eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwic3ViIjoiYWxpY2VAZXh\
    hbXBsZS5jb20iLCJ1c2VyIjoiYWxpY2UiLCJqdGkiOiJzZXNzaW9uLTEiLCJyb2xlcyI6WyJzdXBwb3J0IiwidXNlciJdLCJpYXQ\
    iOjE3MDAwMDAwMDAsIm5iZiI6MTcwMDAwMDAwMCwiZXhwIjoxNzAwMDAzNjAwLCJhZGRyZXNzIjp7ImNpdHkiOiJLw7ZsbiIsImN\
    vZGVzIjpbMSwyLjUsdHJ1ZSxudWxsXX19.Y-t_jvK5IK2DXDEvBYL2theGxw1GbNhWx7hzpTdFQw4
    """
  static let tokenHS384 = """
    eyJhbGciOiJIUzM4NCIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwic3ViIjoiYWxpY2VAZXh\
    hbXBsZS5jb20iLCJ1c2VyIjoiYWxpY2UiLCJqdGkiOiJzZXNzaW9uLTEiLCJyb2xlcyI6WyJzdXBwb3J0IiwidXNlciJdLCJpYXQ\
    iOjE3MDAwMDAwMDAsIm5iZiI6MTcwMDAwMDAwMCwiZXhwIjoxNzAwMDAzNjAwLCJhZGRyZXNzIjp7ImNpdHkiOiJLw7ZsbiIsImN\
    vZGVzIjpbMSwyLjUsdHJ1ZSxudWxsXX19.kmhIvUKKJjW_63qMNcnV9Ez2BhCOUp3vTQQxZXYwmBKVxK6sEfxRsRIQ5QXfW-8X
    """
  static let tokenHS512 = """
    eyJhbGciOiJIUzUxMiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwic3ViIjoiYWxpY2VAZXh\
    hbXBsZS5jb20iLCJ1c2VyIjoiYWxpY2UiLCJqdGkiOiJzZXNzaW9uLTEiLCJyb2xlcyI6WyJzdXBwb3J0IiwidXNlciJdLCJpYXQ\
    iOjE3MDAwMDAwMDAsIm5iZiI6MTcwMDAwMDAwMCwiZXhwIjoxNzAwMDAzNjAwLCJhZGRyZXNzIjp7ImNpdHkiOiJLw7ZsbiIsImN\
    vZGVzIjpbMSwyLjUsdHJ1ZSxudWxsXX19.5V471hoc2CGJwfSP6CrWDNAbNQSZIekCdaJUE1Vqp5nD5iqeXnVRfH_oAbx6YcrVdM\
    JqVBdEKUXjk1tuJNM8BQ
    """
  static let tokenRS256 = """
    eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwic3ViIjoiYWxpY2VAZXh\
    hbXBsZS5jb20iLCJ1c2VyIjoiYWxpY2UiLCJqdGkiOiJzZXNzaW9uLTEiLCJyb2xlcyI6WyJzdXBwb3J0IiwidXNlciJdLCJpYXQ\
    iOjE3MDAwMDAwMDAsIm5iZiI6MTcwMDAwMDAwMCwiZXhwIjoxNzAwMDAzNjAwLCJhZGRyZXNzIjp7ImNpdHkiOiJLw7ZsbiIsImN\
    vZGVzIjpbMSwyLjUsdHJ1ZSxudWxsXX19.4zbaYe80K1E3JZjov3c3ZXjih9YsmaDavn8zUfB5gWXORp_MroWtWL733f7Zhb3xOu\
    5hScVBaSZ2MJR22PR7Wg6WtZeUr3C6TfofKejD9c20bpuQyltZA3gBdhXLzl2fofaO_M6j-VvzhIA9aOMlMogMDZFYBQInQ5Lth5\
    i1tG86PwPNw1teLOmjEcdvStlzJC9TDvdTRHmqk0SEMeigN9WFv-MbnmCG-ewu1qct0X7a070RgY0sZig_n1Bzv33cG8sjPGN2AZ\
    0iWI2dECDCnmOY7_AZwEjglXUBLgmhjBq-rkSodyzqCjVTbDdQCmujKQH3VGUb65VoaIKwa9AKvA
    """
  static let tokenRS384 = """
    eyJhbGciOiJSUzM4NCIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwic3ViIjoiYWxpY2VAZXh\
    hbXBsZS5jb20iLCJ1c2VyIjoiYWxpY2UiLCJqdGkiOiJzZXNzaW9uLTEiLCJyb2xlcyI6WyJzdXBwb3J0IiwidXNlciJdLCJpYXQ\
    iOjE3MDAwMDAwMDAsIm5iZiI6MTcwMDAwMDAwMCwiZXhwIjoxNzAwMDAzNjAwLCJhZGRyZXNzIjp7ImNpdHkiOiJLw7ZsbiIsImN\
    vZGVzIjpbMSwyLjUsdHJ1ZSxudWxsXX19.36oQiraw046WYpGdGuWDVSC7ITGQSUZdbR6yPceT4_ZayAFe5ZgmXGj23vMP8GivIW\
    B67ZsovHrEonXNBAdyAJDSMnZzRRqF2nY7yrvUkI484Wup8tZNeZ3EBqm7f0JzJPxIWa1YiO5_KBbJeFoRtimRDL1cOFbFRaso5c\
    uFrTS-Jgimcc7fgzLVYziS8_vDxpReCheS3ViPgTdtEIbyNGQ9An3n3o6_FlHFA9FEu0wS5oOOdZ3ShiC3qn2lyIPlgqQsnGDxEC\
    SmtTWxB2fg3mtjMljpCHd_x-WA-abO-nQ2a1EYIEdR_9L_GRJT2hNuRWBD37T01x2SQfyYStny2A
    """
  static let tokenRS512 = """
    eyJhbGciOiJSUzUxMiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwic3ViIjoiYWxpY2VAZXh\
    hbXBsZS5jb20iLCJ1c2VyIjoiYWxpY2UiLCJqdGkiOiJzZXNzaW9uLTEiLCJyb2xlcyI6WyJzdXBwb3J0IiwidXNlciJdLCJpYXQ\
    iOjE3MDAwMDAwMDAsIm5iZiI6MTcwMDAwMDAwMCwiZXhwIjoxNzAwMDAzNjAwLCJhZGRyZXNzIjp7ImNpdHkiOiJLw7ZsbiIsImN\
    vZGVzIjpbMSwyLjUsdHJ1ZSxudWxsXX19.jwZQ8ckbfMY02GvMl3nltRYbvnH3N8NIwpmhw--ryk__Ki4XI8bWfaLxNLzM-Dg3GP\
    iPzTrHUbAxggNyNyfsicW_2qcPmdG5oOyBVO794l07mqJD5TjMDbTFPkC6zqG8Us-1YLNMpbbFGEv5RmgSLvk9Q19SXCSh6rLXq9\
    yeWGvhm9OhZe0AdL1hvSHmdZLa7OjfIeOYkxNyD3OFg4bfgRNgXFJa-jSzSFoXZmHPGNDWV7lrDNbXMTTljxAnXT6iNtn_wcm0on\
    1D8Ipvq6dZqmGJbOTA0MyO5VJ-0YoEBWh48F-FxfdtEEj1ztMk6WuBk52pCOfMpge7noaIqFT6eQ
    """
  static let tokenPS256 = """
    eyJhbGciOiJQUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwic3ViIjoiYWxpY2VAZXh\
    hbXBsZS5jb20iLCJ1c2VyIjoiYWxpY2UiLCJqdGkiOiJzZXNzaW9uLTEiLCJyb2xlcyI6WyJzdXBwb3J0IiwidXNlciJdLCJpYXQ\
    iOjE3MDAwMDAwMDAsIm5iZiI6MTcwMDAwMDAwMCwiZXhwIjoxNzAwMDAzNjAwLCJhZGRyZXNzIjp7ImNpdHkiOiJLw7ZsbiIsImN\
    vZGVzIjpbMSwyLjUsdHJ1ZSxudWxsXX19.ZclamMd3KhSi15ElDsi84PTDxKiddvxJBFuZZoinAfVcY6vmXLKikoKafgHZn18AnD\
    dFVxhPc6KFjQMHF6HAEyLD5c_xz-87SZrEy9gdKadRbLKhvqEHCHbOriUf0QAYm-xYyGtOBVIZC-47bVQ72_2zSO8MQmrw-qeb-b\
    RLjlyjjG6Z9XF-jqA-StTJx1YtZxct9pmWeDdaynY5jfeR_48RjC0AM8bBHzK_7cc-7gxL_6vNa9KGVGOtNEYCFmI2de74oG92Zm\
    Td89zQv3oGkAlElXjV17ZvKcTrh3UbX0_N2ewxOqzZmZDkukRNEy68BLcF2XxwaqYg7eJLuhbehA
    """
  static let tokenPS384 = """
    eyJhbGciOiJQUzM4NCIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwic3ViIjoiYWxpY2VAZXh\
    hbXBsZS5jb20iLCJ1c2VyIjoiYWxpY2UiLCJqdGkiOiJzZXNzaW9uLTEiLCJyb2xlcyI6WyJzdXBwb3J0IiwidXNlciJdLCJpYXQ\
    iOjE3MDAwMDAwMDAsIm5iZiI6MTcwMDAwMDAwMCwiZXhwIjoxNzAwMDAzNjAwLCJhZGRyZXNzIjp7ImNpdHkiOiJLw7ZsbiIsImN\
    vZGVzIjpbMSwyLjUsdHJ1ZSxudWxsXX19.Fotr9YIgHPBjx5K0MWMelVnNT_QR_1bEdBU-pYcuxyq5pVaFQGc1dfJFE7xKbrk2lh\
    tNEm66WXoR4-abUn575KpCbemtw8SSc9ayzNscjhd7vFsJ2xZ1XaFIJbXNwO7gL6Fa1tl1zMEF4zrl87b0hKWEW7eX6mUYEjhPCz\
    0ThVwykb3UJ63IDEGtqWGaIs3EltrSImZuJNBwsNU0iRdbgeplNsDU0qArSQCkJgi4PuM3oX8FGTxYR8C3qQX5yddwfgIwUejp_I\
    tflFQHZNUjpz0nB2dasNlOm5aAKQfnGFD2LfpbUnhBxfYSTy_0LdG9inKEj9gWSD6qMFWbxVp7bA
    """
  static let tokenPS512 = """
    eyJhbGciOiJQUzUxMiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwic3ViIjoiYWxpY2VAZXh\
    hbXBsZS5jb20iLCJ1c2VyIjoiYWxpY2UiLCJqdGkiOiJzZXNzaW9uLTEiLCJyb2xlcyI6WyJzdXBwb3J0IiwidXNlciJdLCJpYXQ\
    iOjE3MDAwMDAwMDAsIm5iZiI6MTcwMDAwMDAwMCwiZXhwIjoxNzAwMDAzNjAwLCJhZGRyZXNzIjp7ImNpdHkiOiJLw7ZsbiIsImN\
    vZGVzIjpbMSwyLjUsdHJ1ZSxudWxsXX19.6iS0iU_42w3krOeBE7xFCbxDi03UdR54COVHMMe_oRSwt8PB_-CXDJ-UC8JBc-BfV7\
    bEJddE4Bvw4LHoZ01zb5gjrn_5258jdE3hIy1B85S5DkW26JE3zBu4GT2o_N95rqo3CzGVTtiwEQFkU7K-TUci-ckRzJ-I541qKc\
    xCUd3G930WJ_NEjRHu33_UHeYH2WjjtNSrF6Re8VyLUUKGt8ks1rk5U3yCLVRUHzB7aG5456gQI4FqNZQHjJTOmSD6thJ5_K5BfM\
    lTF2XmlOolXiGHwr5L8-fJPgnWIbzVMpfOYr5jWN0BbnIWKCmBmd_F2mlt5JUnXWnm6onFux1oPQ
    """
  static let tokenES256 = """
    eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwic3ViIjoiYWxpY2VAZXh\
    hbXBsZS5jb20iLCJ1c2VyIjoiYWxpY2UiLCJqdGkiOiJzZXNzaW9uLTEiLCJyb2xlcyI6WyJzdXBwb3J0IiwidXNlciJdLCJpYXQ\
    iOjE3MDAwMDAwMDAsIm5iZiI6MTcwMDAwMDAwMCwiZXhwIjoxNzAwMDAzNjAwLCJhZGRyZXNzIjp7ImNpdHkiOiJLw7ZsbiIsImN\
    vZGVzIjpbMSwyLjUsdHJ1ZSxudWxsXX19.XZgsuh5sFqGkTcmH3LBlidd6EVSdhvSZJPkpWlIgScdCkGBsV4mS6Ldh0pj16CJaFW\
    Xmu6PI8uSN2dGO-nEgcA
    """
  static let tokenES384 = """
    eyJhbGciOiJFUzM4NCIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwic3ViIjoiYWxpY2VAZXh\
    hbXBsZS5jb20iLCJ1c2VyIjoiYWxpY2UiLCJqdGkiOiJzZXNzaW9uLTEiLCJyb2xlcyI6WyJzdXBwb3J0IiwidXNlciJdLCJpYXQ\
    iOjE3MDAwMDAwMDAsIm5iZiI6MTcwMDAwMDAwMCwiZXhwIjoxNzAwMDAzNjAwLCJhZGRyZXNzIjp7ImNpdHkiOiJLw7ZsbiIsImN\
    vZGVzIjpbMSwyLjUsdHJ1ZSxudWxsXX19.NfVcQO_kkpwfTLQsIQVdH5PQmg0ZBaQpRO_QpdOmT-aqqHbqhNtuQmP7EH90kj0jrz\
    SbWjuGQaGwTKhGEpaoaSTCDEBQwvV4VuPq8bF-BA9C1EYaUVvi1SlH6mMqEdfm
    """
  static let tokenES512 = """
    eyJhbGciOiJFUzUxMiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwic3ViIjoiYWxpY2VAZXh\
    hbXBsZS5jb20iLCJ1c2VyIjoiYWxpY2UiLCJqdGkiOiJzZXNzaW9uLTEiLCJyb2xlcyI6WyJzdXBwb3J0IiwidXNlciJdLCJpYXQ\
    iOjE3MDAwMDAwMDAsIm5iZiI6MTcwMDAwMDAwMCwiZXhwIjoxNzAwMDAzNjAwLCJhZGRyZXNzIjp7ImNpdHkiOiJLw7ZsbiIsImN\
    vZGVzIjpbMSwyLjUsdHJ1ZSxudWxsXX19.Ae89Slw0gwcrfZ04_9F90PR2wNEpjqWLiduTr_icpWUbkRsCzM17bsK_NLWugGobzN\
    P49WDXRFA6aVRirglAY43IAcX60yBRohbkhRXFhvgfR1NSUMUbBJvCE5oYZiU42wK7F-Efbxo1b0i1AB1-wtIBQGH_wYO-SBeNLN\
    NsPsdGG9ef
    """
  static let tokenEdDSA = """
    eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwic3ViIjoiYWxpY2VAZXh\
    hbXBsZS5jb20iLCJ1c2VyIjoiYWxpY2UiLCJqdGkiOiJzZXNzaW9uLTEiLCJyb2xlcyI6WyJzdXBwb3J0IiwidXNlciJdLCJpYXQ\
    iOjE3MDAwMDAwMDAsIm5iZiI6MTcwMDAwMDAwMCwiZXhwIjoxNzAwMDAzNjAwLCJhZGRyZXNzIjp7ImNpdHkiOiJLw7ZsbiIsImN\
    vZGVzIjpbMSwyLjUsdHJ1ZSxudWxsXX19.dgeLZDhZNah88DAQalBw2reduADrOOSIF1YIr3iBPrgnqZTLvusWbGP-pfOqr1x6NI\
    KAyLLE8cgYIFu3QbHIDg
    """
  static let tokenEd448 = """
    eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwic3ViIjoiYWxpY2VAZXh\
    hbXBsZS5jb20iLCJ1c2VyIjoiYWxpY2UiLCJqdGkiOiJzZXNzaW9uLTEiLCJyb2xlcyI6WyJzdXBwb3J0IiwidXNlciJdLCJpYXQ\
    iOjE3MDAwMDAwMDAsIm5iZiI6MTcwMDAwMDAwMCwiZXhwIjoxNzAwMDAzNjAwLCJhZGRyZXNzIjp7ImNpdHkiOiJLw7ZsbiIsImN\
    vZGVzIjpbMSwyLjUsdHJ1ZSxudWxsXX19.p7L9pK-ApsL77Ip_pYOenmMDdTmdh2i1jzDhYFZvhSEr15newEjLD-_G1M3ys8W6ZO\
    1Iqmi8WFKARPNFfE7Fp4e-Y0aEoTktW12OiSHjb4ezUZCe2XqZR3UCRF5LLLEgws_8OaOcI7l60RXpwCkAER4A
    """
  static let tokenRSAOther = """
    eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwic3ViIjoiYWxpY2VAZXh\
    hbXBsZS5jb20iLCJ1c2VyIjoiYWxpY2UiLCJqdGkiOiJzZXNzaW9uLTEiLCJyb2xlcyI6WyJzdXBwb3J0IiwidXNlciJdLCJpYXQ\
    iOjE3MDAwMDAwMDAsIm5iZiI6MTcwMDAwMDAwMCwiZXhwIjoxNzAwMDAzNjAwLCJhZGRyZXNzIjp7ImNpdHkiOiJLw7ZsbiIsImN\
    vZGVzIjpbMSwyLjUsdHJ1ZSxudWxsXX19.nEWhfRc-uVG2_l_MOMO4g0X8HVbd4smErTkrUu-wF32vCEgK5TGuDo0w8ChBKins9u\
    JLBNM_Phpz6DcwN1aKXAoWAeKblYHxGtX3xP2hchZjQ21g4DIr6YpRnkYamAVXndGAwrjPDakMNB_Wnp8hbwIJP3hijlaFlEvgpa\
    aWGfDm6BJxnczZskpCW44RPaDHUl5fIPopjpgTyebOiFvgcNVAG3uTcChbz94zClGLZj3-K0dMkM35417E8IjFGqpzE0_fj80KJK\
    5_y972jEwTXuerNLnuRTY_N6fw-51IdDVse9NMSd3JP_uIjci6r5a3xoL37Zq-n37UE0-yOGty0w
    """
  static let tokenKeyA = """
    eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6ImEifQ.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwic3ViI\
    joiYWxpY2VAZXhhbXBsZS5jb20iLCJ1c2VyIjoiYWxpY2UiLCJqdGkiOiJzZXNzaW9uLTEiLCJyb2xlcyI6WyJzdXBwb3J0Iiwid\
    XNlciJdLCJpYXQiOjE3MDAwMDAwMDAsIm5iZiI6MTcwMDAwMDAwMCwiZXhwIjoxNzAwMDAzNjAwLCJhZGRyZXNzIjp7ImNpdHkiO\
    iJLw7ZsbiIsImNvZGVzIjpbMSwyLjUsdHJ1ZSxudWxsXX19.GmK6GnbV-VTpuGiYL6mPfJSjAkh8rBJ94AZ6DPCKGkDUWDg21ySf\
    Ui8Q2Cy4e53n1oy9UWQ8oBjONQdjCB3c1kxbVhYyPQAB-fUm6CxARWwuri4Wz_KJ1Src4ZB87iEzIYNA3wjno2RzPG2QcwypuzYq\
    Zaz13wtGYhFZeG0hNBrodcMwFFkkZQjJD5PRvSp3SxBfTgI-pY94LZxL-c32oxbb7Hz_NpBn5OV9zLX5hfimzzzQSrsaPrG6qxV8\
    6VzEknrG1ulGKkdKhQCvhLwCBuXGL3NO4jljIutx9NFg5BTYmJ_mVZwOQUXE286og0pZPfq5Lg92XvFRT10a_XbpRA
    """
  static let tokenKeyB = """
    eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6ImIifQ.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwic3ViI\
    joiYWxpY2VAZXhhbXBsZS5jb20iLCJ1c2VyIjoiYWxpY2UiLCJqdGkiOiJzZXNzaW9uLTEiLCJyb2xlcyI6WyJzdXBwb3J0Iiwid\
    XNlciJdLCJpYXQiOjE3MDAwMDAwMDAsIm5iZiI6MTcwMDAwMDAwMCwiZXhwIjoxNzAwMDAzNjAwLCJhZGRyZXNzIjp7ImNpdHkiO\
    iJLw7ZsbiIsImNvZGVzIjpbMSwyLjUsdHJ1ZSxudWxsXX19._k4CZO6eDPYz_DYzd3I6fXlgrZ4Kl8CfDt81L-3RE9u_DxSUHQUB\
    1XIPFjx6LAbpoQ_IrcMjA0C-XTi3WjiFYQ
    """
  static let tokenKeyC = """
    eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6ImMifQ.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwic3ViI\
    joiYWxpY2VAZXhhbXBsZS5jb20iLCJ1c2VyIjoiYWxpY2UiLCJqdGkiOiJzZXNzaW9uLTEiLCJyb2xlcyI6WyJzdXBwb3J0Iiwid\
    XNlciJdLCJpYXQiOjE3MDAwMDAwMDAsIm5iZiI6MTcwMDAwMDAwMCwiZXhwIjoxNzAwMDAzNjAwLCJhZGRyZXNzIjp7ImNpdHkiO\
    iJLw7ZsbiIsImNvZGVzIjpbMSwyLjUsdHJ1ZSxudWxsXX19.oIcf5eDwe4VoSvx0xmc6iynK0MPPtn8fSiFjT9iqxtVYpRJaPluS\
    3YtIRC_3RhCtIQvxLbwZb8HPWGtB_qTCCDuWR_BYJTLC-wlZhXHJWhuPlQYLswgLlU12IafsPzNQ5BJG0o2P84-Br9wY55F-8PFV\
    2Bi7XqghY2toTVmQhWBcwj0U6aBbJ6FPA2qitSTfhBF8yBaei9L7Ri4t7JrvWXhStaAwcxAeQEqPRU6GJRCTJmTF1LThkyMl1_NC\
    kCPebmSD44LEaEa_DWeiKxSfuholMj6Vm5V0n-tyxDnVtJ5c09npbeyQqyVwu5i5Mu5c8wGa5hlK8vVvQODC1VQOQQ
    """
  /// Signed by the key that its header brings along.
  static let tokenEmbeddedKey = """
    eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCIsImp3ayI6eyJuIjoibnRaM1VBMk40SjlFTjBRWm9JWUlNbUZzZllYRThNUDdydVh2\
    UlU1WU1ZQm44RDgtc3d2M09obXhrRmtwb1JkeXF2clRJRnpkbHBRWG91MEVfcXFmaVNud1NHSGxnSkRDRE1fRXU0elVtM0ZtS255\
    azZfYWdheVY2LUFxaTBiRkhVc1ZuMGxHSTV6VndVOUYtQThLTmNib2RNTEtka3hDXzJoM0NjZFRocks0dGRpWUFYN1lEdUtLWXoz\
    NHNTU2RwQWFsMWpqel9uMWtuSFp0aE40b0xjdnh4VDA2dzRuV0lhX3hBclcwRlFTeHc4bkhVZEFlNExTUzdSYkdiSnFxZ1NmY205\
    amZTMGFOcmlKeDJUNXRZQ1FKYVVVSDFwVVZOQnJqNU44ZFdPLU5XeTE2TlpQWncwNDlpU3lFZWtybjl0dnhjU3BGeHgzU1hfVThH\
    aVBxWE93IiwiZSI6IkFRQUIiLCJrdHkiOiJSU0EifX0.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwic3ViIjoiYWxp\
    Y2VAZXhhbXBsZS5jb20iLCJ1c2VyIjoiYWxpY2UiLCJqdGkiOiJzZXNzaW9uLTEiLCJyb2xlcyI6WyJzdXBwb3J0IiwidXNlciJd\
    LCJpYXQiOjE3MDAwMDAwMDAsIm5iZiI6MTcwMDAwMDAwMCwiZXhwIjoxNzAwMDAzNjAwLCJhZGRyZXNzIjp7ImNpdHkiOiJLw7Zs\
    biIsImNvZGVzIjpbMSwyLjUsdHJ1ZSxudWxsXX19.cw7ylVCi9bYTpL9A9b3o_psfenBxxsk7nxxYkkJlNdJqCVobaBuVlB1naaN\
    trGHQaVRTFMPTuLcDc3nnTpcAf-tvfaYAzNL_kYVT3rmQK8zOmyI864fFA_kxgOrIrcylRu7fd507mU7VCAb6xIBjGjYKvV3mTJl\
    b0E0K6OHeULR68Vu6nawnI4OTp_GVBHQxl4k8fNkIZF72FydRNmVs0JEo6Xuz6ictQC-qDmT8o7pYMxX4PWGy5PZzyKoA4QV8x40\
    qfDCHNLVgcjhFp5xS8MWlmz2XiGOueJ1NGyGxmqHUiNH3Fe3dKFGilaCToM_N-PdQcbCokR749QLeR-ZY_Q
    """
  /// HS256 with the RSA key's public PEM as secret.
  static let tokenConfused = """
    eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwic3ViIjoiYWxpY2VAZXh\
    hbXBsZS5jb20iLCJ1c2VyIjoiYWxpY2UiLCJqdGkiOiJzZXNzaW9uLTEiLCJyb2xlcyI6WyJzdXBwb3J0IiwidXNlciJdLCJpYXQ\
    iOjE3MDAwMDAwMDAsIm5iZiI6MTcwMDAwMDAwMCwiZXhwIjoxNzAwMDAzNjAwLCJhZGRyZXNzIjp7ImNpdHkiOiJLw7ZsbiIsImN\
    vZGVzIjpbMSwyLjUsdHJ1ZSxudWxsXX19.zWgl1-mrRpod5DqbXbQCRi74I0r_dnD5KX4i2G0I7YA
    """
  static let jwks = """
    {"keys":[{"n":"7uqz-L5BtUfb4sKdzWJFTpu33B3sdQAVSAA_0z-BcjaeADa88rZqzCDI8hnEvmgNbElxAgXwlLU9ZZSIc415P\
    4_3kejNUQYEoOdhELj8gYiFiuBGEsVoWYn6bSbhfLkZwa3YMTVDgZhCDTVndSY3S8Jrs8js6uN5mJ4UggNjBQumAiSDXXibRNnJ5\
    B2AADic6st4chstGbEceiAIMHSK2IOE0H2bLoGWXBbmH2kNkVL5Oh79MqMU6BO45vOXxk7nRTjVscd0TydwlsaAvlfJiiVZoUyfa\
    ranY0pnDRjFtnd2T09hDiVpUS0fgzKwcSiMJFQlACfnrjAcDz0zIhXjNw","e":"AQAB","kty":"RSA","kid":"a","use":"s\
    ig","alg":"RS256"},{"crv":"P-256","x":"_ASzf3eZXHBqjlLalRfCOz8nHwsTGU-Uugu_k3kDDuo","y":"YGVmZRWvGao\
    HO_idQ7AMatM3UDEocklt6LTu47tI-hE","kty":"EC","kid":"b","key_ops":["verify"]},{"crv":"P-384","x":"Sci\
    pZ7OG8MnxRbYxprKWX_t2Ylk0NTcHff2zqDa8_2QRIXn3epGmVF5yV44bHpOq","y":"zp99kjqy5q82URIvu5no261gbs66d1S6\
    -UAL6VZcioFCjhqaaVBN8QEsV-K19_0X","kty":"EC","kid":"p384"},{"crv":"P-521","x":"ACpN4cCaZfeJvko6LL2ss\
    2MhPAjqAff5jOjGQH_RhwnxQdUwVBYvVYw4eZQYYK9jryTpq31HsfiPBJ_8Hef8kcLJ","y":"AYAOZOudRHOuwgI9U1t3Qi_dcy\
    katjU1wT2DNf-14w_p_vviuT_wqdH_OTz9E3y05Nw1rrU32KtP-s-YbL3BstaZ","kty":"EC","kid":"p521"},{"crv":"Ed2\
    5519","x":"Yf2Ov9Iq8OC7zDYmXuDS9ksgEXt016Gw4_vh1CbmITo","kty":"OKP","kid":"ed25519"},{"crv":"Ed448",\
    "x":"-Xs5Ccq3qGEI1CP_4qUyhuYq3PTdswACZyomvYVKuzl9lhQ9jg-3HaVZOOM3c_k6KDUXFWy0nXWA","kty":"OKP","kid"\
    :"ed448"},{"k":"dGVzdCBzZWNyZXQsIHNpeHR5LWZvdXIgYnl0ZXMgbG9uZyBzbyB0aGF0IGl0IGZpdHMgSFM1MTIgYXMgd2Vs\
    bA","kty":"oct","kid":"secret","alg":"HS256"}]}
    """
}
