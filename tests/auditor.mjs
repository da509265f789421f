// A second auditor, so that the first one (`ledger/audit.py`) does not check itself. Written from DESIGN §3 and
// contracts/IConsentLedger.sol; of others' code it uses Node's own and viem's hash, nothing of this package but what
// ships of the contract (ledger/abi).
//
//   node tests/auditor.mjs --url http://... --contract 0x... --chain-id 31337 [--block 0xhash] [--first 0] [--url second]
//   node tests/auditor.mjs --pipe     many audits in one process: one JSON object for each on stdin, see `Pipe`
//
// One JSON line for each audit: verdict (clean | findings | could_not_verify), sorted codes, logs, digest of consents.

import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { keccak256 } from 'viem'

const PER_CALL = 100
const SLACK = 3n // how far two endpoints may be apart: the chain goes on between two questions
const MAX_EMBARGO = 366n * 86_400n
const U32 = 0xffffffffn
const KINDS = { accesses: 0n, refusals: 1n, late: 2n, compelled: 3n }
const REASONS = { none: 0, notGranted: 1, notYetValid: 2, expired: 3, paused: 4, revoked: 5, exhausted: 6 }
Object.assign(REASONS, { wrongCustodian: 7, byCustodian: 8, compelled: 9 })
const STATES = { unknown: 0, active: 1, paused: 2, revoked: 3 }
const SLOTS = { words: 2, numbers: 3, lastNumber: 4, logs: 5 }
const HEADER =
  'parentHash sha3Uncles miner stateRoot transactionsRoot receiptsRoot logsBloom difficulty number gasLimit gasUsed ' +
  'timestamp extraData mixHash nonce baseFeePerGas withdrawalsRoot blobGasUsed excessBlobGas parentBeaconBlockRoot requestsHash'
const NUMBERS = new Set('difficulty number gasLimit gasUsed timestamp baseFeePerGas blobGasUsed excessBlobGas'.split(' '))
// How many words follow the topics; how many topics there are, the event's own included.
const EVENTS = new Map(
  [
    ['ConsentGranted(bytes32,address,address,uint64,uint64,uint32)', 4, 3],
    ['ConsentRevoked(bytes32,address)', 3, 0],
    ['ConsentPauseSet(bytes32,bool,uint32)', 2, 2],
    ['CustodianNumbered(address,uint32)', 2, 1],
    ['WriterSet(address,address,bool)', 3, 1],
    ['AccessRecorded(bytes32,bytes32)', 2, 1],
    ['AccessRefused(bytes32,bytes32,uint8)', 2, 2],
    ['AccessLate(bytes32,bytes32,uint8)', 2, 2],
    ['AccessCompelled(bytes32,bytes32,uint64)', 2, 2],
    ['LogAppended(address,address,uint8,uint64,bytes32)', 3, 3],
  ].map(([signature, topics, words]) => [hash(Buffer.from(signature)), { name: signature.split('(')[0], topics, words }]),
)
const shipped = JSON.parse(readFileSync(new URL('../ledger/abi/ConsentLedger.json', import.meta.url), 'utf8'))

// -------------------------------------------------------------------------------------------------------------- answers

/** The endpoint did not say, or not in a form that can be checked. */
class Unusable extends Error {}

/** What was said is not what a hash that is known commits to, or not what the rules of the contract allow. */
class Found extends Error {
  constructor(code, detail) {
    super(detail)
    this.code = code
  }
}

/** Hex digits without 0x; of that many bytes, if a size is given. */
function hex(value, size) {
  if (typeof value !== 'string' || !/^0x([0-9a-f]{2})*$/i.test(value)) throw new Unusable('not hex digits')
  if (size !== undefined && value.length !== 2 + 2 * size) throw new Unusable(`not ${size} bytes`)
  return value.slice(2).toLowerCase()
}

function quantity(value) {
  if (typeof value !== 'string' || !/^0x[0-9a-f]{1,64}$/i.test(value)) throw new Unusable('not a quantity')
  return BigInt(value)
}

function list(value) {
  if (!Array.isArray(value)) throw new Unusable('not a list')
  return value
}

function object(value) {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) throw new Unusable('not an object')
  return value
}

function hash(bytes) {
  return Buffer.from(keccak256(bytes, 'bytes')).toString('hex')
}

function hashOf(...words) {
  return hash(Buffer.from(words.join(''), 'hex'))
}

function word(value) {
  return typeof value === 'string' ? value.padStart(64, '0') : BigInt(value).toString(16).padStart(64, '0')
}

function even(digits) {
  return digits.length % 2 ? `0${digits}` : digits
}

// ------------------------------------------------------------------------------------------------------- RLP and tries

// Everything as hex digits: short to write, and the answers are hex digits already.
function rlpText(digits) {
  if (digits.length === 2 && digits < '80') return digits
  return rlpHead(digits.length / 2, 0x80) + digits
}

function rlpNumber(value) {
  return rlpText(value === 0n ? '' : even(value.toString(16)))
}

function rlpList(items) {
  const content = items.join('')
  return rlpHead(content.length / 2, 0xc0) + content
}

function rlpHead(size, base) {
  if (size < 56) return (base + size).toString(16).padStart(2, '0')
  const length = even(size.toString(16))
  return (base + 55 + length.length / 2).toString(16) + length
}

/** The items of a list in RLP: text as its digits, a list as its whole encoding between brackets. */
function rlpItems(encoded) {
  const [start, end, isList] = rlpSpan(encoded, 0)
  if (!isList || end !== encoded.length) throw new Unusable('not a list in RLP')
  const items = []
  for (let at = start; at < end; ) {
    const [from, to, nested] = rlpSpan(encoded, at)
    if (to > end) throw new Unusable('not RLP')
    items.push(nested ? `[${encoded.slice(at, to)}]` : encoded.slice(from, to))
    at = to
  }
  return items
}

function rlpSpan(encoded, at) {
  const head = Number.parseInt(encoded.slice(at, at + 2), 16)
  if (Number.isNaN(head)) throw new Unusable('not RLP')
  if (head < 0x80) return [at, at + 2, false]
  const isList = head >= 0xc0
  const size = head - (isList ? 0xc0 : 0x80)
  if (size < 56) return [at + 2, at + 2 + 2 * size, isList]
  const start = at + 2 + 2 * (size - 55)
  return [start, start + 2 * Number.parseInt(encoded.slice(at + 2, start), 16), isList]
}

/** The root of the trie with these keys and values; no key begins with another one. */
function rootOf(pairs) {
  if (pairs.length === 0) return hashOf('80')
  const sorted = pairs.sort(([one], [other]) => (one < other ? -1 : 1))
  return hashOf(trieNode(sorted, 0, sorted.length, 0))
}

function trieNode(pairs, from, to, depth) {
  const [key, value] = pairs[from]
  if (to - from === 1) return rlpList([triePath(key.slice(depth), 2), rlpText(value)])
  const last = pairs[to - 1][0]
  let same = depth
  while (key[same] === last[same]) same += 1
  const children = []
  for (let digit = 0, start = from; digit < 16; digit += 1) {
    let end = start
    while (end < to && Number.parseInt(pairs[end][0][same], 16) === digit) end += 1
    children.push(end > start ? reference(trieNode(pairs, start, end, same + 1)) : '80')
    start = end
  }
  const branch = rlpList([...children, '80'])
  return same > depth ? rlpList([triePath(key.slice(depth, same), 0), reference(branch)]) : branch
}

function triePath(digits, flag) {
  return rlpText(digits.length % 2 ? (flag + 1).toString(16) + digits : `${flag}0${digits}`)
}

function reference(node) {
  return node.length < 64 ? node : `a0${hashOf(node)}`
}

/** What a proof shows under a key (hex digits of its hash); undefined if nothing is there. */
function proven(root, key, nodes) {
  let expected = root
  let at = 0
  let node = null
  for (const given of nodes) {
    if (hashOf(given) !== expected) throw new Found('state_differs', 'nodes that do not belong together')
    node = rlpItems(given)
    for (;;) {
      let next
      if (node.length === 17) {
        next = node[Number.parseInt(key[at], 16)]
        at += 1
      } else if (node.length === 2) {
        const odd = Number.parseInt(node[0][0], 16) & 1
        const path = node[0].slice(odd ? 1 : 2)
        if (key.slice(at, at + path.length) !== path) return undefined
        at += path.length
        next = node[1]
        if (at === key.length) return next
      } else throw new Unusable('not a node of a trie')
      if (next === '') return undefined
      if (!next.startsWith('[')) {
        if (next.length !== 64) throw new Unusable('not a node of a trie')
        expected = next
        break
      }
      node = rlpItems(next.slice(1, -1))
    }
  }
  throw new Found('state_differs', 'a proof that ends on the way')
}

// --------------------------------------------------------------------------------------------------------------- blocks

function readHeader(answer, code = 'header_unlinked') {
  const block = object(answer)
  const names = HEADER.split(' ').filter((name, at) => at < 15 || (block[name] !== undefined && block[name] !== null))
  const encoded = names.map((name) => (NUMBERS.has(name) ? rlpNumber(quantity(block[name])) : rlpText(hex(block[name]))))
  const digest = hashOf(rlpList(encoded))
  if (digest !== hex(block.hash, 32)) throw new Found(code, 'a header that does not have its hash')
  return {
    hash: digest,
    parent: hex(block.parentHash, 32),
    number: quantity(block.number),
    time: quantity(block.timestamp),
    stateRoot: hex(block.stateRoot, 32),
    receiptsRoot: hex(block.receiptsRoot, 32),
    bloom: Buffer.from(hex(block.logsBloom, 256), 'hex'),
    transactions: list(block.transactions).map((one) => hex(one, 32)),
  }
}

function mayHaveLogged(bloom, account) {
  const digest = Buffer.from(hashOf(account), 'hex')
  return [0, 2, 4].every((at) => {
    const bit = digest.readUInt16BE(at) & 2047
    return bloom[255 - (bit >> 3)] & (1 << (bit & 7))
  })
}

/** The contract's events in a block, transaction by transaction, from receipts that the header commits to. */
function eventsIn(header, answer, contract) {
  const receipts = list(answer)
  if (receipts.length !== header.transactions.length) throw new Found('receipts_differ', `block ${header.number}`)
  const pairs = []
  const found = []
  for (const [index, given] of receipts.entries()) {
    const receipt = object(given)
    const kind = quantity(receipt.type ?? '0x0')
    const logs = list(receipt.logs).map((one) => {
      const log = object(one)
      return { account: hex(log.address, 20), topics: list(log.topics).map((topic) => hex(topic, 32)), data: hex(log.data) }
    })
    const body = rlpList([
      receipt.status === undefined ? rlpText(hex(receipt.root)) : rlpNumber(quantity(receipt.status)),
      rlpNumber(quantity(receipt.cumulativeGasUsed)),
      rlpText(hex(receipt.logsBloom, 256)),
      rlpList(
        logs.map((log) =>
          rlpList([rlpText(log.account), rlpList(log.topics.map((topic) => rlpText(topic))), rlpText(log.data)]),
        ),
      ),
    ])
    if (kind > 0x7fn) throw new Unusable('not a type of transaction')
    pairs.push([rlpNumber(BigInt(index)), (kind ? even(kind.toString(16)) : '') + body])
    found.push(logs.filter((log) => log.account === contract))
  }
  if (rootOf(pairs) !== header.receiptsRoot) throw new Found('receipts_differ', `block ${header.number}`)
  return found
}

// ------------------------------------------------------------------------------------------------------------ the rules

/** The contract once more: what its events say has happened, and what it must therefore have stored. */
class Books {
  consents = new Map()
  numbers = new Map()
  logs = new Map()
  codes = new Set()
  now = 0n

  block(time, transactions) {
    this.now = time
    for (const events of transactions) this.transaction(events)
  }

  transaction(events) {
    let entries = []
    for (const { topics, data } of events) {
      const event = EVENTS.get(topics[0])
      const wellFormed = event && event.topics === topics.length && 64 * event.words === data.length
      const words = data.match(/.{64}/g) ?? []
      if (event?.name.startsWith('Access') && topics.length === 2) {
        entries.push({ name: event.name, id: topics[1], data, words, wellFormed })
        continue
      }
      if (wellFormed && event.name === 'LogAppended') {
        this.appended(topics[1].slice(24), topics[2].slice(24), words, entries)
        entries = []
        continue
      }
      if (entries.length) this.codes.add('log_gap')
      entries = []
      if (wellFormed) this[event.name](topics.slice(1), words)
      else this.codes.add('unknown_event')
    }
    if (entries.length) this.codes.add('log_gap')
  }

  judge(consent, number) {
    if (consent.state === STATES.revoked) return REASONS.revoked
    if (consent.state === STATES.unknown) return REASONS.notGranted
    if (consent.number !== number) return REASONS.wrongCustodian
    if (this.now >= consent.expiresAt) return REASONS.expired
    if (consent.accesses >= consent.maxAccesses) return REASONS.exhausted
    if (this.now < consent.validFrom) return REASONS.notYetValid
    return consent.state === STATES.paused ? REASONS.paused : REASONS.none
  }

  appended(custodian, writer, [kindWord, sizeWord, head], entries) {
    const log = this.log(custodian, writer)
    const size = BigInt(`0x${sizeWord}`)
    let kind = BigInt(`0x${kindWord}`)
    if (!log.allowed) this.codes.add('writer_not_allowed')
    if (entries.length === 0) this.codes.add('rule_broken')
    if (kind > KINDS.compelled) {
      this.codes.add('unknown_event')
      kind = KINDS.refusals
    }
    const opened = hashOf(log.head, word(kind), word(entries.length))
    const folded = kind === KINDS.compelled ? this.compelled(opened, entries) : this.accesses(opened, kind, entries, log)
    if (size !== log.size + BigInt(entries.length)) this.codes.add('log_gap')
    if (head !== folded) this.codes.add('log_head_differs')
    Object.assign(log, { size, head })
  }

  accesses(opened, kind, entries, log) {
    let head = opened
    for (const { name, id, words, wellFormed } of entries) {
      const recorded = name === 'AccessRecorded'
      const said = recorded ? 0n : BigInt(`0x${words[1] ?? '0'}`)
      if (!wellFormed || name === 'AccessCompelled' || said > BigInt(REASONS.byCustodian)) {
        this.codes.add('unknown_event')
        continue
      }
      const reason = Number(said)
      head = hashOf(head, id, words[0], word(reason))
      const known = this.consents.get(id)
      const right = kind === KINDS.refusals ? REASONS.byCustodian : this.judge(known ?? newConsent(), log.number)
      const isLate = name === 'AccessLate'
      if (recorded && right !== REASONS.none) this.codes.add('recorded_outside_consent')
      else if (reason !== right || isLate !== (kind === KINDS.late && reason !== REASONS.none)) {
        this.codes.add('verdict_differs')
      }
      if (isLate) this.codes.add('late')
      if (recorded) this.used(id)
      else if (known) known[isLate ? 'late' : 'refused'] += 1
    }
    return head
  }

  used(id) {
    const consent = this.consent(id)
    consent.accesses += 1n
    consent.recorded += 1
    consent.lastAccessAt = this.now
  }

  compelled(opened, entries) {
    const orders = new Set(entries.map(({ id, words }) => id + words[1]))
    if (orders.size !== 1 || !entries.every(({ name, wellFormed }) => name === 'AccessCompelled' && wellFormed)) {
      this.codes.add('unknown_event')
      return opened
    }
    const [{ id, words }] = entries
    if (BigInt(`0x${words[1]}`) > this.now + MAX_EMBARGO) this.codes.add('rule_broken')
    let head = hashOf(opened, id, words[1], word(REASONS.compelled))
    for (const entry of entries) head = hashOf(head, id, entry.words[0], word(REASONS.compelled))
    return head
  }

  ConsentGranted([id, subject, custodian], words) {
    const [validFrom, expiresAt, maxAccesses] = words.map((one) => BigInt(`0x${one}`))
    const number = this.numbers.get(custodian.slice(24)) ?? 0n
    const consent = this.consent(id)
    const windowHolds = validFrom < expiresAt && expiresAt < 1n << 48n && maxAccesses > 0n && maxAccesses <= U32
    if (consent.state !== STATES.unknown || !windowHolds || number === 0n) this.codes.add('rule_broken')
    Object.assign(consent, { validFrom, expiresAt, maxAccesses, number, accesses: 0n, sequence: 0n })
    Object.assign(consent, { state: STATES.active, subject: subject.slice(24), custodian: custodian.slice(24) })
    consent.grantedAt = this.now
  }

  ConsentRevoked([id, by]) {
    const consent = this.consent(id)
    const known = consent.state !== STATES.unknown
    const mayRevoke = !known || by.slice(24) === consent.subject || by.slice(24) === consent.custodian
    if (consent.state === STATES.revoked || !mayRevoke) this.codes.add('rule_broken')
    Object.assign(consent, { state: STATES.revoked, revokedAt: this.now })
  }

  ConsentPauseSet([id], words) {
    const [paused, sequence] = words.map((one) => BigInt(`0x${one}`))
    const consent = this.consent(id)
    const live = consent.state === STATES.active || consent.state === STATES.paused
    if (!live || paused > 1n || sequence <= consent.sequence || sequence > U32) this.codes.add('rule_broken')
    Object.assign(consent, { state: paused ? STATES.paused : STATES.active, sequence })
  }

  CustodianNumbered([custodian], [given]) {
    const number = BigInt(`0x${given}`)
    let last = 0n
    for (const one of this.numbers.values()) last = one > last ? one : last
    if (this.numbers.has(custodian.slice(24)) || number !== last + 1n || number > U32) this.codes.add('rule_broken')
    this.numbers.set(custodian.slice(24), number)
  }

  WriterSet([custodian, writer], [allowed]) {
    const number = this.numbers.get(custodian.slice(24)) ?? 0n
    if (number === 0n || BigInt(`0x${allowed}`) > 1n) this.codes.add('rule_broken')
    Object.assign(this.log(custodian.slice(24), writer.slice(24)), { number, allowed: BigInt(`0x${allowed}`) !== 0n })
  }

  consent(id) {
    if (!this.consents.has(id)) this.consents.set(id, newConsent())
    return this.consents.get(id)
  }

  log(custodian, writer) {
    const key = custodian + writer
    if (!this.logs.has(key)) this.logs.set(key, { head: word(0), size: 0n, number: 0n, allowed: false })
    return this.logs.get(key)
  }

  /** Every slot that these books explain, as a trie's root. */
  storageRoot() {
    const slots = []
    const store = (slot, value) => {
      if (value !== 0n) slots.push([hashOf(slot), rlpNumber(value)])
    }
    for (const [id, one] of this.consents) {
      const low = one.validFrom | (one.expiresAt << 48n) | (one.maxAccesses << 96n) | (one.accesses << 128n)
      const high = (one.number << 160n) | (one.sequence << 192n) | (BigInt(one.state) << 224n)
      store(hashOf(id, word(SLOTS.words)), low | high)
    }
    let last = 0n
    for (const [custodian, number] of this.numbers) {
      store(hashOf(word(custodian), word(SLOTS.numbers)), number)
      last = number > last ? number : last
    }
    store(word(SLOTS.lastNumber), last)
    for (const [key, log] of this.logs) {
      const first = hashOf(word(key.slice(40)), hashOf(word(key.slice(0, 40)), word(SLOTS.logs)))
      store(first, BigInt(`0x${log.head}`))
      const packed = log.size | (log.number << 64n) | (BigInt(log.allowed) << 96n)
      store(word((BigInt(`0x${first}`) + 1n) % (1n << 256n)), packed)
    }
    return rootOf(slots)
  }
}

function newConsent() {
  const numbers = { validFrom: 0n, expiresAt: 0n, maxAccesses: 0n, accesses: 0n, number: 0n, sequence: 0n }
  const seen = { subject: null, custodian: null, grantedAt: null, revokedAt: null, lastAccessAt: null }
  return { ...numbers, ...seen, state: STATES.unknown, recorded: 0, refused: 0, late: 0 }
}

// ------------------------------------------------------------------------------------------------------------- the code

const seenCode = new Map()

/** Whether it is the shipped code, its immutables set as OpenZeppelin's EIP712 sets them here. */
function isShippedCode(code, chainId, contract) {
  const key = `${chainId} ${contract} ${createHash('sha256').update(code).digest('hex')}`
  if (!seenCode.has(key)) seenCode.set(key, compareCode(code, chainId, contract))
  return seenCode.get(key)
}

function compareCode(code, chainId, contract) {
  let masked = code
  const found = []
  for (const [start, length] of shipped.immutables) {
    found.push(masked.slice(2 * start, 2 * (start + length)))
    masked = masked.slice(0, 2 * start) + '0'.repeat(2 * length) + masked.slice(2 * (start + length))
  }
  const text = (value) => hash(Buffer.from(value))
  const short = (value) => Buffer.from(value).toString('hex').padEnd(62, '0') + word(value.length).slice(62)
  const [name, version] = ['ConsentLedger', '1']
  const kind = text('EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)')
  const separator = hashOf(kind, text(name), text(version), word(chainId), word(contract))
  const set = [short(name), short(version), text(name), text(version), word(chainId), word(contract), separator]
  return masked === shipped.deployedBytecode.slice(2) && String(found.sort()) === String(set.sort())
}

// ------------------------------------------------------------------------------------------------------------ the audit

async function audit(ask, { chainId, contract: address, block: wanted, first, endpoints = 1 }) {
  const contract = hex(address, 20)
  const books = new Books()
  const result = { codes: [], logs: [], consents: null, number: null, why: null }
  let unverified = false
  try {
    await audited(ask, { chainId, contract, wanted, first, endpoints }, books, result)
  } catch (error) {
    if (error instanceof Found) books.codes.add(error.code)
    else if (!(error instanceof Unusable)) throw error
    unverified = true
    result.why = error.message
  }
  result.codes = [...books.codes].sort()
  const verdict = result.codes.length ? 'findings' : unverified ? 'could_not_verify' : 'clean'
  return { verdict, ...result }
}

async function audited(ask, { chainId, contract, wanted, first, endpoints }, books, result) {
  // 1. The chain.
  for (let at = 0; at < endpoints; at += 1) {
    if (quantity(await one(ask, at, 'eth_chainId')) !== BigInt(chainId)) throw new Unusable('another chain')
  }

  // 2. The block that everything is about, and what the other endpoints say of it.
  const target = wanted
    ? readHeader(await one(ask, 0, 'eth_getBlockByHash', wanted, false), 'block_differs')
    : await newest(ask, endpoints)
  if (wanted && target.hash !== hex(wanted, 32)) throw new Unusable('another block than the one asked for')
  const number = `0x${target.number.toString(16)}`
  for (let at = 1; at < endpoints; at += 1) {
    const other = readHeader(await one(ask, at, 'eth_getBlockByNumber', number, false), 'endpoints_disagree')
    if (other.number !== target.number) throw new Unusable('another block than the one asked for')
    if (other.hash !== target.hash) throw new Found('endpoints_disagree', number)
  }
  result.number = Number(target.number)

  // 3. The code, by the block's state.
  const [storageRoot, codeHash] = await account(ask, target, contract, number)
  const code = hex(await one(ask, 0, 'eth_getCode', `0x${contract}`, number))
  if (hashOf(code) !== codeHash) throw new Found('code_differs', 'not the code in the state')
  if (!isShippedCode(code, chainId, contract)) books.codes.add('code_differs') // go on: what it let happen matters most

  // 4. Every header up to it, linked; the events, from receipts that the headers commit to, through the rules.
  const headers = await headersUpTo(ask, target, BigInt(first))
  const busy = headers.filter((header) => mayHaveLogged(header.bloom, contract))
  for (let at = 0; at < busy.length; at += PER_CALL) {
    const part = busy.slice(at, at + PER_CALL)
    const receipts = await receiptsOf(ask, part)
    for (const [place, header] of part.entries()) books.block(header.time, eventsIn(header, receipts[place], contract))
  }
  report(books, result)

  // 5. The storage, which the events explain to the last slot.
  if (books.storageRoot() !== storageRoot) books.codes.add('state_differs')
}

/** The newest block that every endpoint has; one that is far behind another is stale. */
async function newest(ask, endpoints) {
  const found = []
  for (let at = 0; at < endpoints; at += 1) {
    found.push(readHeader(await one(ask, at, 'eth_getBlockByNumber', 'latest', false), 'block_differs'))
  }
  const [last, ...others] = found.sort((a, b) => Number(a.number - b.number))
  if (others.some((header) => header.number > last.number + SLACK)) throw new Found('stale_endpoint', `${last.number}`)
  const target = readHeader(await one(ask, 0, 'eth_getBlockByNumber', `0x${last.number.toString(16)}`, false), 'block_differs')
  if (target.number !== last.number) throw new Unusable('another block than the one asked for')
  return target
}

/** Storage root and code hash of the contract, proven under the block's state root. */
async function account(ask, target, contract, number) {
  const proof = object(await one(ask, 0, 'eth_getProof', `0x${contract}`, [], number))
  const found = proven(target.stateRoot, hashOf(contract), list(proof.accountProof).map((node) => hex(node)))
  if (found === undefined) throw new Unusable('there is no contract')
  return rlpItems(found).slice(2)
}

async function headersUpTo(ask, target, first) {
  if (first > target.number) throw new Unusable('the block is before the first one')
  const headers = []
  for (let from = first; from < target.number; from += BigInt(PER_CALL)) {
    const to = from + BigInt(PER_CALL) < target.number ? from + BigInt(PER_CALL) : target.number
    const calls = []
    for (let at = from; at < to; at += 1n) calls.push(['eth_getBlockByNumber', [`0x${at.toString(16)}`, false]])
    for (const given of await answers(ask, 0, calls)) headers.push(readHeader(given))
  }
  headers.push(target)
  for (const [at, header] of headers.entries()) {
    if (header.number !== first + BigInt(at)) throw new Unusable('another block than the one asked for')
    const linked = at === 0 || header.parent === headers[at - 1].hash
    if (!linked) throw new Found('header_unlinked', `block ${header.number}`)
  }
  return headers
}

async function receiptsOf(ask, headers) {
  const whole = await ask(0, headers.map((header) => ['eth_getBlockReceipts', [`0x${header.hash}`]]))
  if (whole.length === headers.length && whole.every((given) => 'result' in given)) return whole.map((given) => given.result)
  // A node that does not know the method: one by one, in the order that the block names.
  const receipts = []
  for (const header of headers) {
    const calls = header.transactions.map((one) => ['eth_getTransactionReceipt', [`0x${one}`]])
    receipts.push(calls.length ? await answers(ask, 0, calls) : [])
  }
  return receipts
}

function report(books, result) {
  const text = (value) => (value === null ? '-' : String(value))
  const lines = [...books.consents].map(([id, one]) =>
    [
      ...[id, one.state, one.validFrom, one.expiresAt, one.maxAccesses, one.recorded, one.refused, one.late],
      ...[one.subject, one.custodian, one.grantedAt, one.revokedAt, one.lastAccessAt],
    ].map(text).join(' '),
  )
  result.consents = createHash('sha256').update(lines.sort().join('\n')).digest('hex')
  const logs = [...books.logs].map(([key, { size, head, allowed }]) =>
    [key.slice(0, 40), key.slice(40), String(size), head, allowed],
  )
  result.logs = logs.sort((one, other) => (String(one) < String(other) ? -1 : 1))
}

// ------------------------------------------------------------------------------------------------------------ endpoints

async function answers(ask, endpoint, calls) {
  const given = await ask(endpoint, calls)
  if (!Array.isArray(given) || given.length !== calls.length) throw new Unusable('not as many answers as questions')
  return given.map((answer) => {
    if (!('result' in answer)) throw new Unusable('an error, or no answer')
    return answer.result
  })
}

async function one(ask, endpoint, method, ...params) {
  return (await answers(ask, endpoint, [[method, params]]))[0]
}

function overHttp(urls) {
  return async (endpoint, calls) => {
    const body = calls.map(([method, params], id) => ({ jsonrpc: '2.0', id, method, params }))
    try {
      const headers = { 'content-type': 'application/json' }
      const signal = AbortSignal.timeout(30_000)
      const response = await fetch(urls[endpoint], { method: 'POST', body: JSON.stringify(body), headers, signal })
      const byId = new Map((await response.json()).map((answer) => [answer.id, answer]))
      return body.map(({ id }) => object(byId.get(id)))
    } catch (error) {
      throw new Unusable(`no usable answer: ${error.message}`)
    }
  }
}

/** Questions go out and answers come in as lines: {"ask": [endpoint, calls]} and [{"result": ...} | {"error": ...}]. */
class Pipe {
  constructor() {
    this.lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
  }

  async next() {
    const { value, done } = await this.lines.next()
    return done ? undefined : JSON.parse(value)
  }

  ask = async (endpoint, calls) => {
    process.stdout.write(`${JSON.stringify({ ask: [endpoint, calls] })}\n`)
    return await this.next()
  }
}

async function main() {
  const text = { type: 'string' }
  const { values } = parseArgs({
    options: {
      ...{ pipe: { type: 'boolean' }, url: { ...text, multiple: true }, contract: text, block: text },
      ...{ first: { ...text, default: '0' }, 'chain-id': { ...text, default: '31337' } },
    },
  })
  if (values.pipe) {
    const pipe = new Pipe()
    for (let wanted = await pipe.next(); wanted !== undefined; wanted = await pipe.next()) {
      process.stdout.write(`${JSON.stringify(await audit(pipe.ask, wanted))}\n`)
    }
    return
  }
  const { url, contract, block, first } = values
  const asked = { chainId: Number(values['chain-id']), contract, block, first, endpoints: url.length }
  const result = await audit(overHttp(url), asked)
  process.stdout.write(`${JSON.stringify(result)}\n`)
  process.exitCode = { clean: 0, findings: 1, could_not_verify: 2 }[result.verdict]
}

await main()
