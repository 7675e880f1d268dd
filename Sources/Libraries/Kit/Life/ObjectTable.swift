// Objects of which each knows its place: taken in and out without looking for them, in no particular order.

public protocol TableMember: AnyObject {
  /// Its place in the one table that it may be in, which alone changes it; -1: it is in none.
  var tableIndex: Int { get set }
}

public struct ObjectTable<Member: TableMember> {
  public private(set) var members: [Member] = []

  public init() {}

  public mutating func insert(_ member: Member) {
    member.tableIndex = members.count
    members.append(member)
  }

  /// False: it isn't there.
  @discardableResult
  public mutating func remove(_ member: Member) -> Bool {
    let index = member.tableIndex
    guard members.indices.contains(index), members[index] === member else { return false }
    member.tableIndex = -1
    let last = members.removeLast()
    if last !== member {
      members[index] = last
      last.tableIndex = index
    }
    return true
  }
}
