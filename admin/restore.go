package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"mailcutover/approval"
	"mailcutover/audit"
	"mailcutover/rollback/control"
	"mailcutover/routing/backup"
	"mailcutover/routing/table"
)

// Restoration is what an empty table would be filled with from a backup.
type Restoration struct {
	Digest      string       `json:"digest" doc:"Of the backup; an approval names it, and mailcutover backup verify prints it"`
	Made        time.Time    `json:"made"`
	Of          string       `json:"of" doc:"The node whose copy it is"`
	By          string       `json:"by" doc:"Who asked for it"`
	Incarnation string       `json:"incarnation"`
	Term        uint32       `json:"term"`
	Revision    uint64       `json:"revision"`
	Agencies    []string     `json:"agencies" doc:"All are locked by it"`
	Mailboxes   int          `json:"mailboxes"`
	Members     []NodeMember `json:"members" doc:"Have to rejoin, or to be attested or evicted. One that has seen more closes the agencies concerned"`
	Operations  []string     `json:"operations" doc:"Had not ended: their nodes end them"`

	Node         string   `json:"node" doc:"Who is asked"`
	HereTerm     uint32   `json:"here_term" doc:"Of its own copy"`
	HereRevision uint64   `json:"here_revision"`
	Older        bool     `json:"older" doc:"The backup is older than that copy"`
	Newer        []string `json:"newer" doc:"Agencies of which this node has seen a newer record: they stay closed until they are reconciled"`
	Gone         []string `json:"gone" doc:"Agencies that this node knows and the backup lacks: they stay closed"`

	Proposer  string   `json:"proposer,omitempty" doc:"Who wants it; absent: nobody"`
	Approvers []string `json:"approvers,omitempty"`
	Wanted    int      `json:"approvals_wanted" doc:"By others than the proposer"`
	Done      string   `json:"done,omitempty" doc:"Where the table stands, once it is filled"`
}

// restore is the proposal to fill an empty table from a backup. As that of a bootstrap, it is
// in this process only.
type restore struct {
	mu        sync.Mutex
	copy      *backup.Copy
	older     bool
	reason    string
	proposer  string
	at        time.Time
	approvers []string
}

// standing reports whether there is a proposal. r.mu is held.
func (r *restore) standing() bool { return r.copy != nil && time.Since(r.at) < bootstrapLife }

func (s *Server) restorationView(c *backup.Copy) (Restoration, error) {
	r, err := s.Control.Restoration(c)
	if err != nil {
		return Restoration{}, restoreProblem(err)
	}
	h := c.Header
	v := Restoration{
		Digest: c.Digest.String(), Made: h.Made, Of: string(h.Node), By: h.Person,
		Incarnation: string(h.Position.Incarnation), Term: h.Position.Term, Revision: uint64(h.Position.Revision),
		Agencies: texts(r.Agencies), Mailboxes: c.Mailboxes, Members: []NodeMember{}, Operations: texts(r.Open),
		Node: s.Node, HereTerm: r.Here.Term, HereRevision: uint64(r.Here.Revision), Older: r.Older, Newer: texts(r.Newer), Gone: texts(r.Gone),
		Wanted: s.needed(),
	}
	for _, m := range c.Contents.Members {
		if slices.Contains(r.Members, m.Node) {
			v.Members = append(v.Members, NodeMember{string(m.Node), m.Address})
		}
	}
	if p := &s.restore; p.standing() && p.copy.Digest == c.Digest {
		v.Proposer, v.Approvers = p.proposer, p.approvers
	}
	return v, nil
}

// restoreProblem is the answer to what a backup can't be used for.
func restoreProblem(err error) error {
	switch {
	case errors.Is(err, control.ErrOther):
		return problem(http.StatusConflict, "is it the right file? What a node has of another table goes when its folder replica is moved away", "%s", err)
	case errors.Is(err, control.ErrOlder):
		return problem(http.StatusConflict, "mailcutover table bootstrap fills the table from a node's newer copy; --older restores all the same: what nodes have seen since stays closed until it is reconciled", "%s", err)
	}
	return err
}

// restoreCall is a backup that is sent.
type restoreCall struct {
	Mutation
	Reason  string `query:"reason" required:"true" minLength:"1" maxLength:"1000" doc:"Why; stands in the audit log and the table's"`
	Older   bool   `query:"older" doc:"Also if this node has seen more: the agencies concerned stay closed until they are reconciled"`
	DryRun  bool   `query:"dry_run" doc:"Only say what it would do"`
	RawBody []byte `contentType:"application/x-ndjson"`
}

func (s *Server) registerRestore(api huma.API) {
	tags := []string{"table"}
	handle(s, api, huma.Operation{
		OperationID: "show-restore", Method: http.MethodGet, Path: restorePath, Tags: tags,
		Summary: "The backup that somebody wants to restore at this node",
	}, func(context.Context, *struct{}) (*reply[Restoration], error) {
		s.restore.mu.Lock()
		defer s.restore.mu.Unlock()
		if !s.restore.standing() {
			return nil, notFound("mailcutover restore FILE proposes one; the proposal is at the node that was asked, for an hour", "nobody wants to restore a backup at this node")
		}
		v, err := s.restorationView(s.restore.copy)
		return &reply[Restoration]{Body: v}, err
	})
	handle(s, api, huma.Operation{
		OperationID: "propose-restore", Method: http.MethodPost, Path: restorePath, Tags: tags,
		Summary:     "Propose that an empty table is filled from a backup",
		Description: "For a table that lost everything, where no node has a newer copy. Others approve it at the same node; the proposal ends after an hour, or with the process. Where one person is enough, it happens at once.",
	}, s.proposeRestore)
	handle(s, api, huma.Operation{
		OperationID: "approve-restore", Method: http.MethodPost, Path: restorePath + "/approve", Tags: tags,
		Summary:     "Approve that, which fills the table once enough people agree",
		Description: "All agencies are locked afterwards, with a higher epoch in a new term; the nodes rejoin. Nobody is told that a name is nobody's, until people say that the names are complete.",
	}, s.approveRestore)
}

func (s *Server) proposeRestore(ctx context.Context, in *restoreCall) (*reply[Restoration], error) {
	ctx, cancel := context.WithTimeout(ctx, bootstrapTimeout)
	defer cancel()
	reason, err := checkReason(in.Reason)
	if err != nil {
		return nil, err
	}
	c, err := backup.Read(bytes.NewReader(in.RawBody))
	if err != nil {
		return nil, problem(http.StatusBadRequest, "mailcutover backup verify FILE says the same, without a node", "%s", err)
	}
	p := &s.restore
	p.mu.Lock()
	defer p.mu.Unlock()
	v, err := s.restorationView(c)
	if err != nil || in.DryRun {
		return &reply[Restoration]{Body: v}, err
	}
	if v.Older && !in.Older {
		return nil, restoreProblem(fmt.Errorf("%w: revision %d of term %d, the backup has %d of %d", control.ErrOlder, v.HereRevision, v.HereTerm, v.Revision, v.Term))
	}
	if err := s.mustBeEmpty(ctx, "restore a backup"); err != nil {
		return nil, err
	}
	if err := s.recordRestore(ctx, c, reason); err != nil {
		return nil, err
	}
	p.copy, p.older, p.reason, p.proposer, p.at, p.approvers = c, in.Older, reason, callerOf(ctx).person, time.Now(), nil
	return s.restoreIfAgreed(ctx)
}

func (s *Server) approveRestore(ctx context.Context, in *bootstrapCall) (*reply[Restoration], error) {
	ctx, cancel := context.WithTimeout(ctx, bootstrapTimeout)
	defer cancel()
	reason, err := checkReason(in.Body.Reason)
	if err != nil {
		return nil, err
	}
	p := &s.restore
	p.mu.Lock()
	defer p.mu.Unlock()
	who := callerOf(ctx).person
	same := func(other string) bool { return approval.Person(other) == approval.Person(who) }
	switch {
	case !p.standing():
		return nil, problem(http.StatusConflict, "somebody proposes it at this node: mailcutover restore FILE", "nobody has proposed to restore a backup here")
	case p.copy.Digest.String() != in.Body.Digest:
		return nil, problem(http.StatusPreconditionFailed, "see mailcutover restore, without a file", "the backup that is proposed is another than the one with digest %s", in.Body.Digest)
	case same(p.proposer):
		return nil, problem(http.StatusForbidden, "somebody else has to look at it", "%s proposed this, and doesn't approve it", who)
	}
	if err := s.mustBeEmpty(ctx, "restore a backup"); err != nil {
		return nil, err
	}
	if err := s.recordRestore(ctx, p.copy, reason); err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(p.approvers, same) {
		p.approvers = append(p.approvers, who)
	}
	return s.restoreIfAgreed(ctx)
}

// mustBeEmpty refuses what would fill a table that has something.
func (s *Server) mustBeEmpty(ctx context.Context, what string) error {
	u, err := s.Table.Snapshot(ctx)
	switch {
	case err == nil && !table.Bare(&u):
		return fmt.Errorf("%s: %w: it stands at revision %d", what, table.ErrFounded, u.Position.Revision)
	case err != nil && !errors.Is(err, table.ErrEmpty):
		return err
	}
	return nil
}

func (s *Server) recordRestore(ctx context.Context, c *backup.Copy, reason string) error {
	at := c.Header.Position
	return s.record(ctx, audit.Entry{Subject: "table", Reason: reason, Digests: []string{c.Digest.String()},
		After: fmt.Sprintf("backup of %s: term %d, revision %d", c.Header.Made.UTC().Format(time.RFC3339), at.Term, at.Revision)})
}

// restoreIfAgreed carries it out once enough people agree. s.restore.mu is held.
func (s *Server) restoreIfAgreed(ctx context.Context) (*reply[Restoration], error) {
	p := &s.restore
	v, err := s.restorationView(p.copy)
	out := &reply[Restoration]{Body: v}
	if err != nil || len(p.approvers) < s.needed() {
		return out, err
	}
	pos, err := s.Control.Restore(ctx, control.Act{ID: "restore/" + uuid.NewString(), Who: p.proposer, Reason: p.reason}, p.copy, p.older)
	if err != nil {
		return nil, restoreProblem(err)
	}
	out.Body.Done = fmt.Sprintf("term %d, revision %d", pos.Term, pos.Revision)
	p.copy = nil
	return out, nil
}

// Restoration returns the backup that somebody wants to restore at the node.
func (c *Client) Restoration(ctx context.Context) (Restoration, error) {
	return get[Restoration](ctx, c, restorePath, nil)
}

// ProposeRestore proposes that an empty table is filled from a backup, or with dryRun only says
// what that would do. older: also if the node has seen more.
func (c *Client) ProposeRestore(ctx context.Context, file io.Reader, reason string, older, dryRun bool) (Restoration, error) {
	ctx, cancel := context.WithTimeout(ctx, backupTimeout+bootstrapTimeout)
	defer cancel()
	q := url.Values{"reason": {reason}, "older": {strconv.FormatBool(older)}, "dry_run": {strconv.FormatBool(dryRun)}}
	return decode[Restoration](c.send(ctx, http.MethodPost, restorePath, q, backupType, file))
}

// ApproveRestore approves that.
func (c *Client) ApproveRestore(ctx context.Context, digest, reason string) (Restoration, error) {
	ctx, cancel := context.WithTimeout(ctx, bootstrapTimeout)
	defer cancel()
	return post[Restoration](ctx, c, restorePath+"/approve", map[string]string{"digest": digest, "reason": reason})
}
