package admin

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"mailcutover/admin/peer"
	"mailcutover/identity/desk"
	"mailcutover/internal/alarm"
	"mailcutover/internal/door"
	"mailcutover/node"
	plandesk "mailcutover/plan/desk"
	"mailcutover/rollback/mailstore"
	"mailcutover/rollback/operation"
	recalldesk "mailcutover/rollback/recall/desk"
	verifydesk "mailcutover/rollback/verify/desk"
	"mailcutover/routing"
	"mailcutover/routing/replica"
	"mailcutover/routing/table"
)

// Replica is this node's copy of the table; *replica.Replica is one.
type Replica interface {
	State() *routing.State
	Wait(ctx context.Context, pos routing.Position) error
	Status() replica.Status
}

// Gate is this node's right to decide; *node.Gate is one.
type Gate interface {
	Address(routing.Address) routing.Decision
	Login(routing.Login) routing.Decision
	Load(routing.AgencyID) node.Load
	Ready() error
}

// Runner carries out operations; *operation.Runner is one.
type Runner interface {
	Plan(ctx context.Context, req operation.Request) (operation.Plan, error)
	Run(ctx context.Context, req operation.Request) (operation.Operation, error)
	Abort(ctx context.Context, id routing.OperationID, who, reason string) (operation.Operation, error)
	Publish(ctx context.Context, id routing.OperationID, who, withoutReplica string) (operation.Operation, error)
	Tell(ctx context.Context, id routing.OperationID, hook, who, receipt string) error
	Without(ctx context.Context, id routing.OperationID, hook, who, reason string) error
	Undo(ctx context.Context, id routing.OperationID, hook, who, reason string, byHand bool) error
	List() ([]operation.Operation, error)
	Unattended() []routing.AgencyID // closed by an operation that nobody runs
}

// Alarms is the node's list of what a human has to see; *alarm.Set is one.
type Alarms interface {
	List() []alarm.Alarm
	Clear(key string) bool
}

// Options are what a Server works with. All functions and interfaces are required unless they
// say what nil is; they must be safe for concurrent use.
type Options struct {
	Table   table.Table
	Replica Replica
	Gate    Gate
	Runner  Runner
	Control Control
	Alarms  Alarms

	LocalLocks LocalLocker

	Spool  Spool
	Queue  Queue
	Ledger Ledger

	Retained Copies // nil: no copies are kept

	SpoolDirectory string                                                        // whose quarantine/ is listed; empty: it isn't
	AdoptSpool     func(ctx context.Context, dir, from string) (Adoption, error) // takes over another node's spool: returns when it is this node's, and moves its mail on
	Adoptions      func() []Adoption                                             // since the start
	Troubles       func() []string                                               // what is wrong with spool and ledger, as was seen last: it must not wait for a disk

	Platforms func() []Platform         // as configured, with what is known of their health
	Tokens    func() []Token            // those valid now
	Config    func(changed bool) string // the settings in force as YAML, secrets left out; changed: only those that differ from the defaults
	Reload    func(ctx context.Context) (Reloaded, error)
	Metrics   http.Handler // serves /metrics

	Postmaster func() routing.Address           // where <postmaster> goes now; empty: nowhere
	Answer     func(d *routing.Decision) string // what a sender is answered for a recipient with this decision, for people

	Sessions   LoginSessions                               // nil: no logins go through this node
	Login      func(name string) (routing.Decision, error) // what a login means, and where it goes; nil: by the table's logins alone
	Desk       func() *desk.Desk                           // who knows the directories now; nil, or returns nil: none is configured
	Recall     *recalldesk.Desk                            // who brings mail over after a switch; nil: nobody
	Verify     *verifydesk.Desk                            // who compares mailboxes; nil: nobody
	Plan       *plandesk.Desk                              // this node's part in the waves; nil: it has none
	Mailboxes  func(routing.PlatformID) mailstore.Store    // of a platform; nil, or returns nil: they can't be read
	Notices    Notices                                     // who tells of events; nil: nobody
	Peers      *peer.Group                                 // the other nodes; nil: none is called
	PeerSecret func() string                               // that the nodes share; nil or empty: no node may call this one

	// Bearer returns who has a token that isn't one of Tokens; nil: nobody. Certificate returns whose
	// client certificate this is, which was verified; nil: nobody's.
	Bearer      func(ctx context.Context, token string) (Identity, error)
	Certificate func(cert *x509.Certificate) (Identity, error)

	Audit       Audit
	Checkpoints Checkpoints // nil: the audit log isn't signed
	Answers     Folder      // where answers to calls with an Idempotency-Key are kept

	Node         string               // this one's name
	Limit        func() time.Duration // the longest connection limit of a platform: after it, a silent node can deliver nothing
	Separator    string               // of sub-addressing; empty: none
	Approval     string               // "none": one person is enough; all else: others have to approve
	Approvals    func() int           // how many others; not asked with "none"
	ApprovalLife func() time.Duration // from a proposal to its use
	Lab          bool                 // no real mail is at stake here
	Imports      bool                 // mailboxes may be imported from a file that nobody has compared with a directory
	Version      Version
	Logger       *slog.Logger
}

// Server is the API. Use [New].
type Server struct {
	Options
	mux        *http.ServeMux
	http       *http.Server
	origin     *http.CrossOriginProtection
	answers    *answers
	operations *operations
	bootstrap  bootstrap
	restore    restore
	began      time.Time
}

// New returns a server that serves nothing yet.
func New(o Options) *Server {
	if o.Desk == nil {
		o.Desk = func() *desk.Desk { return nil }
	}
	s := &Server{
		Options: o, mux: http.NewServeMux(), origin: http.NewCrossOriginProtection(),
		operations: newOperations(o.Runner, o.Logger), answers: newAnswers(o.Answers, o.Logger), began: time.Now(),
	}
	s.http = &http.Server{
		Handler: s, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug), ConnContext: door.Context,
	}
	s.register()
	return s
}

// Serve answers on l, which it closes, until Shutdown; then it returns nil.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the API at %s: %w", l.Addr(), err)
	}
	return nil
}

// Shutdown takes no new operation, waits for those under way, and ends all calls. After
// two thirds of the time until ctx's deadline, and when ctx ends, operations that aren't
// committed are aborted, which is waited for. When ctx ends, calls are cut.
func (s *Server) Shutdown(ctx context.Context) error {
	s.operations.stop(ctx)
	if err := s.http.Shutdown(ctx); err != nil {
		_ = s.http.Close()
		return fmt.Errorf("end calls of the API: %w", err)
	}
	return nil
}
