package config

import (
	"log/slog"
	"time"

	"mailcutover/routing"
)

// Config is a node's settings. Get one from [Load] or, for a program that sets its own,
// from [Default]; treat it as immutable.
//
// The tag "config" names the key; "restart" marks what a running node can't change, or,
// as "presence", can't be given or taken away; "like" names the sibling that a section which isn't there, and every key that is left
// out of it, takes its values from; "as" the sibling that has the same keys; "path" marks
// file names.
type Config struct {
	Node         string `config:"node" restart:"yes"`            // host name of this node: greeting, EHLO, "by" of our Received lines
	Installation string `config:"installation" restart:"yes"`    // word that tells our Received lines from another mailcutover's; the same on all nodes
	Data         string `config:"data" restart:"yes" path:"yes"` // directory of this node's own files

	Approval     Approval      `config:"approval" restart:"yes"`
	Approvals    int           `config:"approvals"`         // by others than the proposer
	ApprovalLife time.Duration `config:"approval_life"`     // from the proposal to its use
	Lab          bool          `config:"lab" restart:"yes"` // no real mail is at stake here; shown by /readyz and every command

	Table      Table      `config:"table"`
	Lease      Lease      `config:"lease" restart:"yes"`
	Listeners  []Listener `config:"listeners"`
	Logins     Logins     `config:"logins"`
	Platforms  []Platform `config:"platforms"`
	Routing    Routing    `config:"routing"`
	Spool      Spool      `config:"spool"`
	Notices    Notices    `config:"notices"`
	Ledger     Ledger     `config:"ledger" restart:"yes"`
	Retained   Retained   `config:"retained" restart:"yes"`
	Recall     Recall     `config:"recall"`
	Verify     Comparing  `config:"verify"`
	Plan       Planning   `config:"plan"`
	Encryption Encryption `config:"encryption" restart:"yes"`
	Operations Operations `config:"operations"`
	Identity   Identity   `config:"identity"`
	Audit      Audit      `config:"audit"`
	Admin      Admin      `config:"admin"`
	Page       Page       `config:"page"`
	Log        Log        `config:"log"`

	// Warnings are findings that don't stop the start; main logs them.
	Warnings []Problem
	// Path is the file that was read, absolute; empty without one.
	Path string
}

// Approval says who must agree before an agency is switched.
type Approval string

const (
	ApprovalNone     Approval = "none"     // one person is enough; in a lab only
	ApprovalRequired Approval = "required" // others than the proposer (promise P9)
)

func (Approval) words() []string { return []string{"none", "required"} }

// Table is where the state table lives.
type Table struct {
	Redis *Redis `config:"redis" restart:"yes"` // nil: the embedded table, in Data, for one node alone
}

// Redis is a state table in Redis.
type Redis struct {
	URL             string        `config:"url"` // redis://, rediss:// or unix://, without credentials
	Username        string        `config:"username"`
	Password        Secret        `config:"password"`
	TLS             RedisTLS      `config:"tls"`
	Sentinel        RedisSentinel `config:"sentinel"`
	Replicas        int           `config:"replicas"`        // that must have confirmed before a switch counts
	Timeout         time.Duration `config:"timeout"`         // for one command, and for connecting
	AllowPlaintext  bool          `config:"allow_plaintext"` // TCP without TLS to another host
	AllowNoPassword bool          `config:"allow_no_password"`
}

// RedisSentinel is where Sentinels are that know the primary. Without addresses there are
// none, and the primary is where the URL says.
type RedisSentinel struct {
	Master    string   `config:"master"`    // the primary's name, as the Sentinels have it
	Addresses []string `config:"addresses"` // host:port of all of them
	Username  string   `config:"username"`  // of the Sentinels themselves, as Password
	Password  Secret   `config:"password"`
}

// RedisTLS is what a rediss:// table is checked against.
type RedisTLS struct {
	CAFile     string `config:"ca_file" path:"yes"`   // empty: the system's
	CertFile   string `config:"cert_file" path:"yes"` // our certificate, with KeyFile; empty: none
	KeyFile    string `config:"key_file" path:"yes"`
	ServerName string `config:"server_name"` // empty: the URL's host
}

// Lease bounds how long a node decides without having reached the table.
type Lease struct {
	Settled time.Duration `config:"settled"` // for settled agencies
	Armed   time.Duration `config:"armed"`   // for armed ones
	Margin  time.Duration `config:"margin"`  // taken off both by the node itself
	Renew   time.Duration `config:"renew"`   // between two renewals; 0: a fifth of Armed, 2 s at most

	// SettleAfter is after how long without a change an armed agency settles by itself; 0:
	// never.
	SettleAfter time.Duration `config:"settle_after"`

	// ClockRunsWhileStopped declares that this node's monotonic clock goes on while its
	// machine is stopped or suspended, so that the end of its long lease proves something.
	ClockRunsWhileStopped bool `config:"clock_runs_while_stopped"`
}

// Routing is what decides besides the table.
type Routing struct {
	Separator  string `config:"separator" restart:"yes"` // of sub-addressing, one of + - = # _ ~; empty: none
	Postmaster string `config:"postmaster"`              // where <postmaster> without a domain goes
	HopLimit   int    `config:"hop_limit"`               // with more Received lines a message is a loop
	OwnLimit   int    `config:"own_limit"`               // and with more of ours
}

// Spool is what a node does with mail that it can't deliver now. A bound of 0 is none.
type Spool struct {
	Bytes          Size               `config:"bytes" restart:"yes"`           // of bodies; the disk needs up to twice as much
	Messages       int                `config:"messages" restart:"yes"`        //
	AgencyBytes    Size               `config:"agency_bytes" restart:"yes"`    // the same for each agency
	AgencyMessages int                `config:"agency_messages" restart:"yes"` //
	PutOff         []routing.AgencyID `config:"put_off"`                       // whose mail is answered 451 and not held while they are closed
	Rate           int                `config:"rate" restart:"yes"`            // messages a second to each platform; 0: as fast as it takes them
	QuarantineAge  time.Duration      `config:"quarantine_age" restart:"yes"`  // of files in the spool's quarantine/ (damaged parts, not mail that is listed), after which they are removed; 0: never
	Retry          Retry              `config:"retry" restart:"yes"`
}

// Retry says when waiting mail is tried again.
type Retry struct {
	First    time.Duration `config:"first"`    // after the first attempt; the delays grow by half
	Max      time.Duration `config:"max"`      // the longest delay
	Life     time.Duration `config:"life"`     // of waiting mail, after which its sender is told; held mail has no end
	Patience time.Duration `config:"patience"` // how long a mailbox with held mail keeps its order while its platform puts it off
}

// Notices are what others are told: senders of mail that can't be delivered (RFC 3464), and
// programs and people of events.
type Notices struct {
	Platform      string        `config:"platform" restart:"yes"`       // the one of platforms that takes them; empty: none, they stay in the spool with an alarm
	Contact       string        `config:"contact" restart:"yes"`        // for people; empty: the postmaster
	OriginalBytes Size          `config:"original_bytes" restart:"yes"` // most of the original that is returned
	DelayAfter    time.Duration `config:"delay_after" restart:"yes"`    // when the sender is told that it is late; 0: never

	Webhooks  []Webhook `config:"webhooks"`
	Mail      []Letters `config:"mail"`
	From      string    `config:"from"`                 // of mail about events; empty: Routing.Postmaster
	Templates string    `config:"templates" path:"yes"` // directory; empty: the program's own
}

// Ledger is the record of deliveries on this node's disk.
type Ledger struct {
	MaxAge  time.Duration `config:"max_age"`  // of records
	Bytes   Size          `config:"bytes"`    // of all; the oldest go first
	HashKey Secret        `config:"hash_key"` // addresses are kept as hashes under this key; none: in clear
}

// Operations says what cutovers and rollbacks do besides switching.
type Operations struct {
	Mover         []Move        `config:"mover"`          // operations that wait for somebody's word that the mailboxes' mover is done
	MoverExpected time.Duration `config:"mover_expected"` // after which that wait raises an alarm
	Canaries      []Canary      `config:"canaries"`
	CanaryWait    time.Duration `config:"canary_wait"` // how long a canary may take

	CanaryEvery    time.Duration `config:"canary_every"`    // each node tries each agency's canary so often; 0: only after a switch
	CanaryFailures int           `config:"canary_failures"` // in a row on one node, until it is reacted
	CanaryReact    CanaryReact   `config:"canary_react"`
}

// Move is a kind of operation that changes the platform.
type Move string

const (
	MoveCutover  Move = "cutover"
	MoveRollback Move = "rollback"
)

func (Move) words() []string { return []string{"cutover", "rollback"} }

// Admin is the HTTP API with /healthz, /readyz and /metrics.
type Admin struct {
	Address        string   `config:"address" restart:"yes"`
	AllowPlaintext bool     `config:"allow_plaintext" restart:"yes"`
	TLS            AdminTLS `config:"tls"`
	Peer           Peer     `config:"peer"`
	Tokens         []Token  `config:"tokens"`
	SignOn         SignOn   `config:"sign_on"`
}

// Peer says how the nodes call each other's API.
type Peer struct {
	Address string `config:"address" restart:"yes"` // host:port by which others reach this node; empty: admin.address
	Secret  Secret `config:"secret"`                // that all nodes share; none: no node calls another, or is called
	CAFile  string `config:"ca_file" path:"yes"`    // of the others' certificates; empty: the system's
}

// AdminTLS is the API's certificate; empty: no TLS. The files are read again at each reload.
type AdminTLS struct {
	CertFile string `config:"cert_file" path:"yes" restart:"presence"`
	KeyFile  string `config:"key_file" path:"yes" restart:"presence"`
}

// Token lets one person or program use the API.
type Token struct {
	Name   string `config:"name"`
	Person string `config:"person"` // who is behind it
	SHA256 Hash   `config:"sha256"` // of the token's text

	// Roles say what it may do; empty: everything in a lab, nowhere else allowed.
	Roles    []Role             `config:"roles"`
	Agencies []routing.AgencyID `config:"agencies"` // that it may act on; empty: all
}

// Role is what a token may be used for; package admin says what that is.
type Role string

const (
	RoleViewer   Role = "viewer"
	RolePlanner  Role = "planner"
	RoleOperator Role = "operator"
	RoleApprover Role = "approver"
	RoleReleaser Role = "releaser"
	RoleAdmin    Role = "admin"
)

func (Role) words() []string {
	return []string{"viewer", "planner", "operator", "approver", "releaser", "admin"}
}

// Log is the log on standard error.
type Log struct {
	Level  Level  `config:"level"`
	Format Format `config:"format" restart:"yes"`
}

// Level is the least that is logged.
type Level string

const (
	LevelDebug Level = "debug"
	LevelInfo  Level = "info"
	LevelWarn  Level = "warn"
	LevelError Level = "error"
)

func (Level) words() []string { return []string{"debug", "info", "warn", "error"} }

// Slog returns l in the terms of package slog.
func (l Level) Slog() slog.Level {
	switch l {
	case LevelDebug:
		return slog.LevelDebug
	case LevelWarn:
		return slog.LevelWarn
	case LevelError:
		return slog.LevelError
	default:
		return slog.LevelInfo
	}
}

// Format is the form of a log line.
type Format string

const (
	FormatJSON Format = "json"
	FormatText Format = "text"
)

func (Format) words() []string { return []string{"json", "text"} }
