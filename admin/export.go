package admin

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"mailcutover/admin/peer"
	"mailcutover/audit"
	"mailcutover/routing"
)

// Manifest is the last line of an export of the ledgers, and says what it is.
type Manifest struct {
	Agency   string         `json:"agency,omitempty" doc:"Absent: all, and fixed addresses"`
	From     time.Time      `json:"from" doc:"Handed over from then on"`
	To       time.Time      `json:"to" doc:"And before"`
	Platform string         `json:"platform,omitempty"`
	Result   string         `json:"result,omitempty"`
	Made     time.Time      `json:"made"`
	By       string         `json:"by" doc:"Person"`
	Reason   string         `json:"reason"`
	Node     string         `json:"node" doc:"That was asked"`
	Rows     int            `json:"rows"`
	Nodes    map[string]int `json:"nodes" doc:"Rows of each node that answered"`
	Missing  []Missing      `json:"missing" doc:"Nodes that did not answer, from when on, and why: what went through them since then is not here"`
	Notes    []string       `json:"notes" doc:"What else may be missing, and why"`
	Complete bool           `json:"complete" doc:"Nothing is known to be missing"`
	SHA256   string         `json:"sha256" doc:"Of all lines before this one"`
}

// exportLine is a line of an export: a row, or the manifest.
type exportLine struct {
	*Delivery
	Manifest *Manifest `json:"manifest,omitempty"`
}

const (
	exportPath = ledgerPath + "/export"

	// exportType is the content type of an export: JSON values, one in each line.
	exportType = "application/x-ndjson"

	// exportRows is how many rows of a node are held at once; a message's rows come together.
	exportRows = 10_000

	// The time that is asked for at once is halved until it has fewer rows than that.
	firstWindow = time.Hour
	leastWindow = time.Millisecond
	mostWindow  = 24 * time.Hour
)

// exportQuery asks for an export.
type exportQuery struct {
	Agency   string    `query:"agency" maxLength:"63"`
	All      bool      `query:"all" doc:"All agencies, and fixed addresses; needed if no agency is named, refused otherwise"`
	Platform string    `query:"platform" maxLength:"63"`
	Result   string    `query:"result" enum:"delivered,not acknowledged,refused,in doubt,not sent,pending"`
	From     time.Time `query:"from" required:"true"`
	To       time.Time `query:"to" required:"true"`
	Reason   string    `query:"reason" required:"true" minLength:"1" maxLength:"1000" doc:"Why; stands in the audit log"`
}

func (in *exportQuery) scope() []routing.AgencyID {
	if in.Agency == "" {
		return nil
	}
	return []routing.AgencyID{routing.AgencyID(in.Agency)}
}

func (s *Server) registerExport(api huma.API, tags []string) {
	handle(s, api, huma.Operation{
		OperationID: "export-ledger", Method: http.MethodGet, Path: exportPath, Tags: tags,
		Summary: "Which messages went where, when, and by which mapping: rows of all nodes in the order of time",
		Description: "A JSON value in each line: the rows, and at last the manifest, with what is missing and the SHA-256 of all lines before. An export without one was cut. " +
			"It is in the audit log with its reason before the first line is sent.",
		Responses: map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{
			exportType: {Schema: &huma.Schema{Type: huma.TypeString}},
		}}},
	}, func(ctx context.Context, in *exportQuery) (*huma.StreamResponse, error) {
		reason, err := checkReason(in.Reason)
		if err != nil {
			return nil, err
		}
		one := ledgerQuery{Agency: in.Agency, All: in.All, Platform: in.Platform, Result: in.Result, Limit: exportRows}
		if _, err := one.search(); err != nil {
			return nil, err
		}
		now := time.Now()
		if in.To.After(now) {
			in.To = now
		}
		if !in.From.Before(in.To) {
			return nil, problem(http.StatusBadRequest, "", "from is not before to, or in the future")
		}
		subject := "deliveries of agency " + in.Agency
		if in.All {
			subject = "deliveries of all agencies"
		}
		span := in.From.UTC().Format(time.RFC3339) + " to " + in.To.UTC().Format(time.RFC3339)
		if err := s.record(ctx, audit.Entry{Subject: subject, Reason: reason, After: "given out: " + span}); err != nil {
			return nil, err
		}
		x := &export{s: s, query: one, members: s.others(ctx, true), sum: sha256.New()}
		x.m = Manifest{
			Agency: in.Agency, From: in.From, To: in.To, Platform: in.Platform, Result: in.Result, Made: now, By: callerOf(ctx).person, Reason: reason,
			Node: s.Node, Nodes: map[string]int{}, Missing: []Missing{}, Notes: []string{},
		}
		x.lose(in.From, s.excluded())
		return &huma.StreamResponse{Body: func(hc huma.Context) { x.stream(ctx, hc) }}, nil
	})
}

// export is one that is being made.
type export struct {
	s       *Server
	query   ledgerQuery
	members []peer.Member // that still answer
	m       Manifest
	sum     hash.Hash
	out     *bufio.Writer
}

// stream writes all of it. After an error there is no manifest, which says so.
func (x *export) stream(ctx context.Context, hc huma.Context) {
	hc.SetHeader("Content-Type", exportType)
	hc.SetStatus(http.StatusOK)
	x.out = bufio.NewWriterSize(hc.BodyWriter(), 64<<10)
	err := x.rows(ctx)
	if err == nil {
		x.m.Complete = len(x.m.Missing)+len(x.m.Notes) == 0
		x.m.SHA256 = hex.EncodeToString(x.sum.Sum(nil))
		err = x.write(&exportLine{Manifest: &x.m})
	}
	if err = errors.Join(err, x.out.Flush()); err != nil {
		x.s.Logger.WarnContext(ctx, "export of the ledgers was cut", "request", requestOf(ctx).id, "error", err)
	}
}

func (x *export) write(line *exportLine) error {
	b, err := json.Marshal(line)
	if err != nil {
		return fmt.Errorf("encode a row: %w", err)
	}
	b = append(b, '\n')
	x.sum.Write(b)
	_, err = x.out.Write(b)
	return err
}

// rows writes the rows, by spans of time that are short enough to be held.
func (x *export) rows(ctx context.Context) error {
	window := firstWindow
	for from := x.m.From; from.Before(x.m.To); {
		if err := ctx.Err(); err != nil {
			return err
		}
		to := from.Add(window)
		if to.After(x.m.To) {
			to = x.m.To
		}
		got := x.span(ctx, from, to)
		if got.More && window > leastWindow {
			window = max(window/2, leastWindow)
			continue
		}
		if got.More {
			x.note(fmt.Sprintf("more than %d rows of a node within %s from %s on: not all of them are here", exportRows, leastWindow, from.UTC().Format(time.RFC3339Nano)))
		}
		x.lose(from, got.Missing)
		for _, note := range got.Notes {
			x.note(note)
		}
		slices.SortFunc(got.Deliveries, func(a, b Delivery) int { return a.compare(&b) })
		for i := range got.Deliveries {
			d := &got.Deliveries[i]
			x.m.Nodes[d.Node]++
			x.m.Rows++
			if err := x.write(&exportLine{Delivery: d}); err != nil {
				return err
			}
		}
		if len(got.Deliveries) < exportRows/4 {
			window = min(2*window, mostWindow)
		}
		from = to
	}
	return nil
}

// span returns the rows of all nodes that were handed over within a span of time.
func (x *export) span(ctx context.Context, from, to time.Time) Deliveries {
	q := x.query
	q.Since, q.Until = from, to
	search, err := q.search()
	if err != nil {
		return Deliveries{Notes: []string{err.Error()}} // not reached: it was looked at before
	}
	theirs := make(chan Deliveries, 1)
	go func() { theirs <- x.s.deliveriesElsewhere(ctx, &q, x.members) }() // no longer than a peer's timeout
	got := x.s.deliveriesHere(ctx, &search, q.Limit)
	got.add(<-theirs)
	return got
}

// lose notes nodes that did not answer. They aren't asked any more: an export says from when on
// one is missing, and has all of it before.
func (x *export) lose(from time.Time, missing []Missing) {
	for _, m := range missing {
		m.Error = fmt.Sprintf("from %s on: %s", from.UTC().Format(time.RFC3339Nano), m.Error)
		x.m.Missing = append(x.m.Missing, m)
		x.members = slices.DeleteFunc(x.members, func(one peer.Member) bool { return one.Node == m.Node })
	}
}

// note notes once what may be missing.
func (x *export) note(text string) {
	if !slices.Contains(x.m.Notes, text) {
		x.m.Notes = append(x.m.Notes, text)
	}
}

// ErrCut is wrapped where an export ended before its manifest, or isn't what the node sent.
var ErrCut = errors.New("the export is not whole")

// LedgerExport asks for an export. Agency or All is set, From is before To.
type LedgerExport struct {
	Agency, Platform, Result string
	All                      bool
	From, To                 time.Time
	Reason                   string
}

// exportTimeout bounds an export in all.
const exportTimeout = 30 * time.Minute

// ExportLedger calls each with the rows of an export in the order of time, and returns its
// manifest once it is proven that all lines came as they were sent. The error is each's, or wraps
// [ErrCut].
func (c *Client) ExportLedger(ctx context.Context, e LedgerExport, each func(*Delivery) error) (Manifest, error) {
	ctx, cancel := context.WithTimeout(ctx, exportTimeout)
	defer cancel()
	q := (&ledgerQuery{Agency: e.Agency, All: e.All, Platform: e.Platform, Result: e.Result}).values()
	q.Set("from", e.From.UTC().Format(time.RFC3339Nano))
	q.Set("to", e.To.UTC().Format(time.RFC3339Nano))
	q.Set("reason", e.Reason)
	res, err := c.send(ctx, http.MethodGet, exportPath, q, "", nil)
	if err != nil {
		return Manifest{}, err
	}
	defer res.Body.Close()
	sum := sha256.New()
	lines := bufio.NewReaderSize(res.Body, 64<<10)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return Manifest{}, fmt.Errorf("%w: it has no manifest", ErrCut)
		}
		if err != nil {
			return Manifest{}, fmt.Errorf("%w: %w", ErrCut, err)
		}
		var one exportLine
		if err := json.Unmarshal(line, &one); err != nil {
			return Manifest{}, fmt.Errorf("%w: a line is not JSON: %w", ErrCut, err)
		}
		if m := one.Manifest; m != nil {
			if got := hex.EncodeToString(sum.Sum(nil)); !strings.EqualFold(got, m.SHA256) {
				return Manifest{}, fmt.Errorf("%w: its SHA-256 is %s, the manifest says %s", ErrCut, got, m.SHA256)
			}
			return *m, nil
		}
		sum.Write(line)
		if one.Delivery == nil {
			return Manifest{}, fmt.Errorf("%w: a line is neither a row nor the manifest", ErrCut)
		}
		if err := each(one.Delivery); err != nil {
			return Manifest{}, err
		}
	}
}
