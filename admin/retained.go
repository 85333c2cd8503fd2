package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"mailcutover/admin/peer"
	"mailcutover/audit"
	"mailcutover/ledger/retained"
	"mailcutover/routing"
)

// Copies are the retained copies of this node; *retained.Store is one.
type Copies interface {
	Find(ctx context.Context, q retained.Query) iter.Seq2[retained.Copy, error]
	Open(c *retained.Copy) (*retained.Body, error)
	Status() retained.Status
	Removals() []retained.Removal
}

// RetainedStatus is how the retained copies of all nodes are.
type RetainedStatus struct {
	Nodes   []RetainedNode `json:"nodes"`
	Missing []Missing      `json:"missing" doc:"Nodes that did not answer"`
}

// RetainedNode is how the retained copies of one node are.
type RetainedNode struct {
	Node     string           `json:"node"`
	Kept     bool             `json:"kept" doc:"False: retained.agency_bytes is 0 there"`
	Copies   int              `json:"copies"`
	Bytes    int64            `json:"bytes" doc:"On the disk"`
	Failed   uint64           `json:"failed" doc:"Delivered messages of which no copy could be kept, since the node's start"`
	Damaged  uint64           `json:"damaged" doc:"Bodies that were read and are not what was kept, since the node's start"`
	Error    string           `json:"error,omitempty" doc:"Why the last copy could not be kept"`
	Since    *time.Time       `json:"error_since,omitempty"`
	Key      string           `json:"key,omitempty" doc:"Name of the key of encryption.key_file that seals; absent: copies are not encrypted"`
	Agencies []RetainedAgency `json:"agencies"`
	Removals []RemovedCopies  `json:"removals" doc:"The last ones, the newest first"`
}

// RetainedAgency is how the copies of one agency are on one node.
type RetainedAgency struct {
	Agency  string         `json:"agency"`
	Copies  int            `json:"copies"`
	Bytes   int64          `json:"bytes"`
	First   *time.Time     `json:"first,omitempty" doc:"When the oldest was kept"`
	Last    *time.Time     `json:"last,omitempty"`
	Damaged int            `json:"damaged,omitempty" doc:"Copies, or groups of them, that can't be read"`
	Failed  uint64         `json:"failed,omitempty" doc:"Delivered messages of which no copy could be kept, since the node's start"`
	Removed *RemovedCopies `json:"removed,omitempty" doc:"What is no longer there, in all"`
}

// RemovedCopies are copies that are no longer there.
type RemovedCopies struct {
	Agency string     `json:"agency"`
	Time   time.Time  `json:"time" doc:"When they were removed"`
	Reason string     `json:"reason" enum:"bound of the agency,bound of all,room on the disk,age,finalised"`
	Copies int        `json:"copies"`
	Bytes  int64      `json:"bytes"`
	First  *time.Time `json:"first,omitempty" doc:"When the oldest of them was kept"`
	Last   *time.Time `json:"last,omitempty"`
}

// RetainedCopies are copies without their content, the oldest first.
type RetainedCopies struct {
	Copies  []RetainedCopy `json:"copies"`
	More    bool           `json:"more,omitempty" doc:"There are more than the limit"`
	Missing []Missing      `json:"missing" doc:"Nodes that did not answer: their copies are not here"`
	Notes   []string       `json:"notes,omitempty" doc:"What can't be read"`
}

// RetainedCopy is a copy without its content.
type RetainedCopy struct {
	Node        string      `json:"node" doc:"That has it"`
	Transaction string      `json:"transaction"`
	Agency      string      `json:"agency"`
	Platform    string      `json:"platform" doc:"That took the message"`
	Kept        time.Time   `json:"kept" doc:"Right after the platform's answer"`
	From        string      `json:"from" doc:"Envelope sender; empty: the null sender"`
	MessageID   string      `json:"message_id,omitempty"`
	Size        int64       `json:"size"`
	Digest      string      `json:"digest,omitempty" doc:"xxHash64 of the message, as the ledger has it"`
	Recipients  []CopiedFor `json:"recipients"`
}

// CopiedFor is a recipient of a copy.
type CopiedFor struct {
	Address string `json:"address"`
	Mailbox string `json:"mailbox,omitempty" doc:"Directory id"`
	Epoch   string `json:"epoch"`
}

const (
	retainedPath = "/v1/retained"
	copiesPath   = retainedPath + "/copies"

	// shownRemovals is how many removals a status has.
	shownRemovals = 20
)

// copiesQuery asks for copies.
type copiesQuery struct {
	Agency      string    `query:"agency" maxLength:"63"`
	Transaction string    `query:"transaction" maxLength:"100"`
	Recipient   string    `query:"rcpt" maxLength:"1000"`
	Since       time.Time `query:"since" doc:"Kept from then on"`
	Until       time.Time `query:"until"`
	Limit       int       `query:"limit" minimum:"1" maximum:"10000" default:"1000"`
	Here        bool      `query:"here" doc:"Only on this node"`
}

func (in *copiesQuery) values() url.Values {
	q := span(in.Since, in.Until, in.Limit)
	for key, value := range map[string]string{"agency": in.Agency, "transaction": in.Transaction, "rcpt": in.Recipient} {
		if value != "" {
			q.Set(key, value)
		}
	}
	return q
}

func (in *copiesQuery) search() (q retained.Query, err error) {
	if in.Agency == "" && in.Transaction == "" && in.Recipient == "" {
		return q, problem(http.StatusBadRequest, "", "name an agency, a transaction or a recipient")
	}
	q.Since, q.Until = in.Since, in.Until
	if in.Agency != "" {
		if q.Agency, err = routing.ParseAgencyID(in.Agency); err != nil {
			return q, err
		}
	}
	if in.Transaction != "" {
		if q.Transaction, err = parseTransaction(in.Transaction); err != nil {
			return q, err
		}
	}
	if in.Recipient != "" {
		if q.Recipient, err = routing.ParseAddress(in.Recipient); err != nil {
			return q, problem(http.StatusBadRequest, "write it as local-part@domain", "%s", err)
		}
	}
	return q, nil
}

// fetchQuery asks for a message.
type fetchQuery struct {
	ID     string `path:"id" maxLength:"100" doc:"Transaction"`
	Reason string `query:"reason" required:"true" minLength:"1" maxLength:"1000" doc:"Why; stands in the audit log"`
}

func (s *Server) registerRetained(api huma.API) {
	tags := []string{"retained"}
	handle(s, api, huma.Operation{
		OperationID: "retained-status", Method: http.MethodGet, Path: retainedPath, Tags: tags,
		Summary: "How many copies of delivered mail are retained for the way back, by node and agency, and what is gone",
	}, func(ctx context.Context, in *struct {
		Here bool `query:"here" doc:"Only this node"`
	}) (*reply[RetainedStatus], error) {
		out := &reply[RetainedStatus]{Body: RetainedStatus{Nodes: []RetainedNode{s.retainedHere()}, Missing: []Missing{}}}
		if !in.Here {
			out.Body.Missing = elsewhere(ctx, s, s.others(ctx, true), peer.Call{Method: http.MethodGet, Path: retainedPath, Timeout: peerFindTimeout}, func(_ string, theirs RetainedStatus) {
				out.Body.Nodes = append(out.Body.Nodes, theirs.Nodes...)
			})
		}
		return out, nil
	})
	handle(s, api, huma.Operation{
		OperationID: "list-retained", Method: http.MethodGet, Path: copiesPath, Tags: tags,
		Summary: "Retained copies, without content: of an agency, a message or a recipient",
	}, func(ctx context.Context, in *copiesQuery) (*reply[RetainedCopies], error) {
		return s.listRetained(ctx, in)
	})
	handle(s, api, huma.Operation{
		OperationID: "fetch-retained", Method: http.MethodGet, Path: copiesPath + "/{id}/message", Tags: tags,
		Summary:     "A retained message itself, as it went to the platform",
		Description: "Of the node that is asked; list-retained says which node has it. It is in the audit log with its reason before the first byte is sent. An answer that is shorter than its Content-Length was cut: the copy is damaged.",
		Responses: map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{
			"message/rfc822": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}},
		}}},
	}, func(ctx context.Context, in *fetchQuery) (*huma.StreamResponse, error) {
		return s.fetchRetained(ctx, in)
	})
}

// retainedHere is how this node's copies are.
func (s *Server) retainedHere() RetainedNode {
	n := RetainedNode{Node: s.Node, Agencies: []RetainedAgency{}, Removals: []RemovedCopies{}}
	if s.Retained == nil {
		return n
	}
	st := s.Retained.Status()
	n.Kept, n.Copies, n.Bytes, n.Failed, n.Damaged, n.Key = true, st.Copies, st.Bytes, st.Failed, st.Damaged, st.Key
	if st.Err != nil {
		n.Error, n.Since = st.Err.Error(), timeView(st.ErrSince)
	}
	for i := range st.Agencies {
		a := &st.Agencies[i]
		v := RetainedAgency{Agency: string(a.ID), Copies: a.Copies, Bytes: a.Bytes, First: timeView(a.First), Last: timeView(a.Last), Damaged: a.Damaged, Failed: a.Failed}
		if a.Removed.Copies > 0 {
			gone := removedView(&a.Removed.Removal)
			v.Removed = &gone
		}
		n.Agencies = append(n.Agencies, v)
	}
	all := s.Retained.Removals()
	for i := len(all) - 1; i >= max(0, len(all)-shownRemovals); i-- {
		n.Removals = append(n.Removals, removedView(&all[i]))
	}
	return n
}

func removedView(r *retained.Removal) RemovedCopies {
	return RemovedCopies{Agency: string(r.Agency), Time: r.Time, Reason: r.Reason, Copies: r.Copies, Bytes: r.Bytes, First: timeView(r.First), Last: timeView(r.Last)}
}

func (s *Server) listRetained(ctx context.Context, in *copiesQuery) (*reply[RetainedCopies], error) {
	q, err := in.search()
	if err != nil {
		return nil, err
	}
	out := &reply[RetainedCopies]{Body: s.copiesHere(ctx, q, in.Limit)}
	all := &out.Body
	if !in.Here {
		all.Missing = elsewhere(ctx, s, s.others(ctx, true), peer.Call{Method: http.MethodGet, Path: copiesPath, Query: in.values(), Timeout: peerFindTimeout}, func(_ string, theirs RetainedCopies) {
			all.Copies = append(all.Copies, theirs.Copies...)
			all.More = all.More || theirs.More
			all.Notes = append(all.Notes, theirs.Notes...)
		})
	}
	slices.SortStableFunc(all.Copies, func(a, b RetainedCopy) int { return a.Kept.Compare(b.Kept) })
	if len(all.Copies) > in.Limit {
		all.Copies, all.More = all.Copies[:in.Limit], true
	}
	return out, nil
}

// copiesHere returns this node's copies.
func (s *Server) copiesHere(ctx context.Context, q retained.Query, limit int) RetainedCopies {
	all := RetainedCopies{Copies: []RetainedCopy{}, Missing: []Missing{}}
	if s.Retained == nil {
		return all
	}
	ctx, cancel := context.WithTimeout(ctx, findTimeout)
	defer cancel()
	for c, err := range s.Retained.Find(ctx, q) {
		if err != nil {
			if ctx.Err() == nil {
				all.Notes = append(all.Notes, fmt.Sprintf("node %s: %s", s.Node, err))
			}
			continue
		}
		if all.More = len(all.Copies) >= limit; all.More {
			break
		}
		all.Copies = append(all.Copies, s.copyView(&c))
	}
	all.Notes = append(all.Notes, cutShort(ctx)...)
	return all
}

func (s *Server) copyView(c *retained.Copy) RetainedCopy {
	v := RetainedCopy{
		Node: s.Node, Transaction: string(c.Transaction), Agency: string(c.Agency), Platform: string(c.Platform), Kept: c.Kept, From: c.From,
		MessageID: c.MessageID, Size: c.Size, Recipients: []CopiedFor{},
	}
	if c.Digest != 0 {
		v.Digest = fmt.Sprintf("%016x", uint64(c.Digest))
	}
	for _, r := range c.Recipients {
		to := CopiedFor{Address: string(r.Address), Epoch: r.Epoch.String()}
		if !r.Mailbox.IsZero() {
			to.Mailbox = r.Mailbox.String()
		}
		v.Recipients = append(v.Recipients, to)
	}
	return v
}

// fetchRetained hands out a message.
func (s *Server) fetchRetained(ctx context.Context, in *fetchQuery) (*huma.StreamResponse, error) {
	reason, err := checkReason(in.Reason)
	if err != nil {
		return nil, err
	}
	id, err := parseTransaction(in.ID)
	if err != nil {
		return nil, err
	}
	if s.Retained == nil {
		return nil, notFound("see retained.agency_bytes", "node %s retains no copies", s.Node)
	}
	var found *retained.Copy
	for c, err := range s.Retained.Find(ctx, retained.Query{Transaction: id}) {
		if err == nil { // any of them is the message
			found = &c
			break
		}
	}
	if found == nil {
		return nil, notFound("see which node has it: mailcutover retained list --transaction "+string(id), "node %s has no copy of %s", s.Node, id)
	}
	if err := s.record(ctx, audit.Entry{Subject: fmt.Sprintf("retained copy of %s, agency %s", id, found.Agency), Reason: reason, After: "given out"}); err != nil {
		return nil, err
	}
	body, err := s.Retained.Open(found)
	if err != nil {
		return nil, damagedCopy(err)
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		defer body.Close()
		hc.SetHeader("Content-Type", "message/rfc822")
		hc.SetHeader("Content-Length", fmt.Sprint(found.Size))
		hc.SetStatus(http.StatusOK)
		if _, err := io.Copy(hc.BodyWriter(), body); err != nil {
			s.Logger.ErrorContext(ctx, "retained copy was handed out in part", "request", requestOf(ctx).id, "transaction", id, "error", err)
		}
	}}, nil
}

func damagedCopy(err error) error {
	if errors.Is(err, retained.ErrDamaged) || errors.Is(err, retained.ErrRemoved) {
		return problem(http.StatusGone, "see mailcutover retained status", "%s", err)
	}
	return err
}

// Retained says how the copies of all nodes are.
func (c *Client) Retained(ctx context.Context) (RetainedStatus, error) {
	return get[RetainedStatus](ctx, c, retainedPath, nil)
}

// RetainedQuery asks for copies; one of Agency, Transaction and Recipient is set.
type RetainedQuery struct {
	Agency, Transaction, Recipient string
	Since, Until                   time.Time // zero: no bound
	Limit                          int       // 0: the node's default
}

// RetainedCopies lists copies without content, the oldest first.
func (c *Client) RetainedCopies(ctx context.Context, r RetainedQuery) (RetainedCopies, error) {
	in := copiesQuery{Agency: r.Agency, Transaction: r.Transaction, Recipient: r.Recipient, Since: r.Since, Until: r.Until, Limit: r.Limit}
	return get[RetainedCopies](ctx, c, copiesPath, in.values())
}

// FetchRetained writes a retained message of the node that is asked to w.
func (c *Client) FetchRetained(ctx context.Context, transaction, reason string, w io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, exportTimeout)
	defer cancel()
	res, err := c.send(ctx, http.MethodGet, copiesPath+"/"+url.PathEscape(transaction)+"/message", url.Values{"reason": {reason}}, "", nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(w, res.Body); err != nil {
		return fmt.Errorf("%w: the message was cut: %w", ErrUnreachable, err)
	}
	return nil
}
