package admin

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"mailcutover/approval"
	"mailcutover/audit"
	"mailcutover/rollback/control"
	"mailcutover/routing"
)

// bootstrapTimeout bounds the filling of an empty table.
const bootstrapTimeout = 5 * time.Minute

// bootstrapLife is how long a proposal to fill an empty table lasts.
const bootstrapLife = time.Hour

// Foundation is what an empty table would be filled with.
type Foundation struct {
	Digest      string       `json:"digest" doc:"Of the copy's records; an approval names it"`
	Node        string       `json:"node" doc:"Whose copy it is"`
	Incarnation string       `json:"incarnation"`
	Term        uint32       `json:"term"`
	Revision    uint64       `json:"revision"`
	Agencies    []string     `json:"agencies" doc:"All are locked by it"`
	Mailboxes   int          `json:"mailboxes"`
	Members     []NodeMember `json:"members" doc:"Have to rejoin, or to be attested or evicted. One that has seen more closes the agencies concerned"`
	Operations  []string     `json:"operations" doc:"Have not ended: their nodes end them"`

	Proposer  string   `json:"proposer,omitempty" doc:"Who wants it; absent: nobody"`
	Approvers []string `json:"approvers,omitempty"`
	Wanted    int      `json:"approvals_wanted" doc:"By others than the proposer"`
	Done      string   `json:"done,omitempty" doc:"Where the table stands, once it is filled"`
}

// NodeMember is a node, and where its API was.
type NodeMember struct {
	Node    string `json:"node"`
	Address string `json:"address,omitempty"`
}

// bootstrap is the proposal to fill an empty table. It can't be in that table, so it is in
// this process only.
type bootstrap struct {
	mu        sync.Mutex
	digest    routing.Digest
	reason    string
	proposer  string
	at        time.Time
	approvers []string
}

// standing reports whether there is a proposal for this copy. b.mu is held.
func (b *bootstrap) standing(d routing.Digest) bool {
	return b.proposer != "" && b.digest == d && time.Since(b.at) < bootstrapLife
}

func (s *Server) foundationView(f *control.Foundation) Foundation {
	v := Foundation{
		Digest: f.Digest.String(), Node: s.Node, Incarnation: string(f.Source.Incarnation), Term: f.Source.Term, Revision: uint64(f.Source.Revision),
		Agencies: texts(f.Agencies), Mailboxes: f.Mailboxes, Members: []NodeMember{}, Operations: texts(f.Open), Wanted: s.needed(),
	}
	state := s.Replica.State()
	for _, id := range f.Members {
		m, _ := state.Member(id)
		v.Members = append(v.Members, NodeMember{string(id), m.Address})
	}
	if s.bootstrap.standing(f.Digest) {
		v.Proposer, v.Approvers = s.bootstrap.proposer, s.bootstrap.approvers
	}
	return v
}

// bootstrapCall names the copy and says why.
type bootstrapCall struct {
	Mutation
	Body struct {
		Digest string `json:"digest" minLength:"1" maxLength:"64" doc:"Of the copy that you have seen"`
		Reason string `json:"reason" minLength:"1" maxLength:"1000"`
	}
}

func (s *Server) registerBootstrap(api huma.API) {
	tags := []string{"table"}
	const path = "/v1/table/foundation"
	handle(s, api, huma.Operation{
		OperationID: "show-foundation", Method: http.MethodGet, Path: path, Tags: tags,
		Summary: "What an empty table would be filled with from this node's copy, and who wants that",
	}, func(context.Context, *struct{}) (*reply[Foundation], error) {
		f, err := s.Control.Foundation()
		if err != nil {
			return nil, err
		}
		s.bootstrap.mu.Lock()
		defer s.bootstrap.mu.Unlock()
		return &reply[Foundation]{Body: s.foundationView(&f)}, nil
	})
	handle(s, api, huma.Operation{
		OperationID: "propose-bootstrap", Method: http.MethodPost, Path: path, Tags: tags,
		Summary:     "Propose that an empty table is filled from this node's copy",
		Description: "For a table that lost everything and can't be restored. Ask the node whose copy is the newest: highest term, then highest revision. Others approve it at the same node; the proposal ends after an hour, or with the process. Where one person is enough, it happens at once.",
	}, func(ctx context.Context, in *bootstrapCall) (*reply[Foundation], error) {
		return s.agreeToBootstrap(ctx, in, true)
	})
	handle(s, api, huma.Operation{
		OperationID: "approve-bootstrap", Method: http.MethodPost, Path: path + "/approve", Tags: tags,
		Summary:     "Approve that, which fills the table once enough people agree",
		Description: "All agencies are locked afterwards, with a higher epoch in a new term; the nodes rejoin.",
	}, func(ctx context.Context, in *bootstrapCall) (*reply[Foundation], error) {
		return s.agreeToBootstrap(ctx, in, false)
	})
}

func (s *Server) agreeToBootstrap(ctx context.Context, in *bootstrapCall, propose bool) (*reply[Foundation], error) {
	ctx, cancel := context.WithTimeout(ctx, bootstrapTimeout)
	defer cancel()
	reason, err := checkReason(in.Body.Reason)
	if err != nil {
		return nil, err
	}
	f, err := s.Control.Foundation()
	if err != nil {
		return nil, err
	}
	if f.Digest.String() != in.Body.Digest {
		return nil, problem(http.StatusPreconditionFailed, "see mailcutover table bootstrap", "this node's copy is another than the one with digest %s", in.Body.Digest)
	}
	if err := s.mustBeEmpty(ctx, "fill the table from this node's copy"); err != nil {
		return nil, err
	}
	who := callerOf(ctx).person
	b := &s.bootstrap
	b.mu.Lock()
	defer b.mu.Unlock()
	same := func(other string) bool { return approval.Person(other) == approval.Person(who) }
	switch {
	case propose:
	case !b.standing(f.Digest):
		return nil, problem(http.StatusConflict, "somebody proposes it at this node: mailcutover table bootstrap --from-replicas", "nobody has proposed to fill the table from this copy")
	case same(b.proposer):
		return nil, problem(http.StatusForbidden, "somebody else has to look at it", "%s proposed this, and doesn't approve it", who)
	}
	if err := s.record(ctx, audit.Entry{Subject: "table", Reason: reason, After: fmt.Sprintf("term %d, revision %d", f.Source.Term, f.Source.Revision), Digests: []string{f.Digest.String()}}); err != nil {
		return nil, err
	}
	if propose {
		b.digest, b.reason, b.proposer, b.at, b.approvers = f.Digest, reason, who, time.Now(), nil
	} else if !slices.ContainsFunc(b.approvers, same) {
		b.approvers = append(b.approvers, who)
	}
	out := &reply[Foundation]{Body: s.foundationView(&f)}
	if len(b.approvers) < s.needed() {
		return out, nil
	}
	act := control.Act{ID: "bootstrap/" + uuid.NewString(), Who: b.proposer, Reason: b.reason}
	pos, err := s.Control.Bootstrap(ctx, act, f.Digest)
	if err != nil {
		return nil, err
	}
	out.Body.Done = fmt.Sprintf("term %d, revision %d", pos.Term, pos.Revision)
	b.proposer = ""
	return out, nil
}

// Foundation returns what an empty table would be filled with from the node's copy.
func (c *Client) Foundation(ctx context.Context) (Foundation, error) {
	return get[Foundation](ctx, c, "/v1/table/foundation", nil)
}

// ProposeBootstrap proposes that an empty table is filled from the node's copy.
func (c *Client) ProposeBootstrap(ctx context.Context, digest, reason string) (Foundation, error) {
	return post[Foundation](ctx, c, "/v1/table/foundation", map[string]string{"digest": digest, "reason": reason})
}

// ApproveBootstrap approves that.
func (c *Client) ApproveBootstrap(ctx context.Context, digest, reason string) (Foundation, error) {
	return post[Foundation](ctx, c, "/v1/table/foundation/approve", map[string]string{"digest": digest, "reason": reason})
}
