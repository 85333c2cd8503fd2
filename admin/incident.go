package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"mailcutover/admin/peer"
	"mailcutover/audit"
	"mailcutover/internal/alarm"
	"mailcutover/routing"
)

// IncidentRecords are what all nodes have written down of what people did in a span of time,
// and what they raise alarms about.
type IncidentRecords struct {
	Nodes   []IncidentNode `json:"nodes"`
	Missing []Missing      `json:"missing" doc:"Nodes that did not answer: what was done through them is not here"`
}

// IncidentNode is what one node has.
type IncidentNode struct {
	Node    string           `json:"node"`
	Head    string           `json:"head" doc:"Of its audit log, as NODE/CHAIN/NUMBER/HASH"`
	Damage  string           `json:"damage,omitempty" doc:"What is wrong with that log"`
	Records []IncidentRecord `json:"records" doc:"Of the span of time, about whatever agency, the oldest first"`
	More    bool             `json:"more,omitempty" doc:"There are more, later ones"`
	Alarms  []alarm.Alarm    `json:"alarms" doc:"That are raised now"`
}

// IncidentRecord is what an audit log has about one act.
type IncidentRecord struct {
	Number    uint64    `json:"number" doc:"In the node's log"`
	Node      string    `json:"node"`
	Time      time.Time `json:"time" doc:"By the node's clock"`
	Person    string    `json:"person,omitempty" doc:"Absent: the node itself"`
	What      string    `json:"what" doc:"One word of the act"`
	Subject   string    `json:"subject"`
	Reason    string    `json:"reason,omitempty"`
	Before    string    `json:"before,omitempty"`
	After     string    `json:"after,omitempty"`
	Epoch     string    `json:"epoch,omitempty"`
	Digests   []string  `json:"digests,omitempty"`
	Operation string    `json:"operation,omitempty"`
	Proposal  string    `json:"proposal,omitempty"`
	Emergency bool      `json:"emergency,omitempty"`
	Error     string    `json:"error,omitempty" doc:"Why its effect did not happen, or not as a whole"`
}

func incidentRecord(r *audit.Record) IncidentRecord {
	return IncidentRecord{
		Number: r.Number, Node: r.Node, Time: r.Time, Person: r.Person, What: r.What, Subject: r.Subject, Reason: r.Reason, Before: r.Before, After: r.After,
		Epoch: r.Epoch, Digests: r.Digests, Operation: r.Operation, Proposal: r.Proposal, Emergency: r.Emergency, Error: r.Error,
	}
}

const (
	incidentPath = "/v1/incident"

	// mostIncidentRecords is how many records of a node one answer has.
	mostIncidentRecords = 20_000
)

// incidentQuery asks for the records of an incident.
type incidentQuery struct {
	Agency string    `query:"agency" required:"true" minLength:"1" maxLength:"63" doc:"For whose report they are"`
	From   time.Time `query:"from" required:"true"`
	To     time.Time `query:"to" required:"true"`
	Reason string    `query:"reason" required:"true" minLength:"1" maxLength:"1000" doc:"Why; stands in the audit log"`
}

func (in *incidentQuery) scope() []routing.AgencyID {
	return []routing.AgencyID{routing.AgencyID(in.Agency)}
}

func (in *incidentQuery) values() url.Values {
	return url.Values{
		"agency": {in.Agency}, "from": {in.From.UTC().Format(time.RFC3339Nano)}, "to": {in.To.UTC().Format(time.RFC3339Nano)}, "reason": {in.Reason},
	}
}

func (s *Server) registerIncident(api huma.API) {
	handle(s, api, huma.Operation{
		OperationID: "incident-records", Method: http.MethodGet, Path: incidentPath, Tags: []string{"incident"},
		Summary:     "What all nodes wrote down in a span of time, for an incident export",
		Description: "It is in the audit log with its reason before it is answered. Another node is waited for five seconds; missing names those that did not answer.",
	}, func(ctx context.Context, in *incidentQuery) (*reply[IncidentRecords], error) {
		out, err := s.incident(ctx, in)
		return &reply[IncidentRecords]{Body: out}, err
	})
}

func (s *Server) incident(ctx context.Context, in *incidentQuery) (out IncidentRecords, err error) {
	reason, err := checkReason(in.Reason)
	if err != nil {
		return out, err
	}
	if !in.From.Before(in.To) {
		return out, problem(http.StatusBadRequest, "", "from is not before to")
	}
	if _, ok := s.Replica.State().Agency(routing.AgencyID(in.Agency)); !ok {
		return out, noAgency(in.Agency)
	}
	if requestOf(ctx).peer == "" { // the node that is asked writes it down, not each that it asks
		span := in.From.UTC().Format(time.RFC3339) + " to " + in.To.UTC().Format(time.RFC3339)
		if err := s.record(ctx, audit.Entry{Subject: "incident of agency " + in.Agency, Reason: reason, After: "given out: " + span}); err != nil {
			return out, err
		}
	}
	own, err := s.incidentHere(in.From, in.To)
	if err != nil {
		return out, err
	}
	out.Nodes = []IncidentNode{own}
	out.Missing = elsewhere(ctx, s, s.others(ctx, true), peer.Call{Method: http.MethodGet, Path: incidentPath, Query: in.values(), Timeout: peerFindTimeout}, func(_ string, theirs IncidentRecords) {
		out.Nodes = append(out.Nodes, theirs.Nodes...)
	})
	if requestOf(ctx).peer == "" {
		out.Missing = append(out.Missing, s.excluded()...)
	}
	slices.SortFunc(out.Nodes, func(a, b IncidentNode) int { return strings.Compare(a.Node, b.Node) })
	return out, nil
}

// incidentHere reads this node's audit log, as it stands.
func (s *Server) incidentHere(from, to time.Time) (n IncidentNode, err error) {
	n = IncidentNode{Node: s.Node, Records: []IncidentRecord{}, Alarms: s.Alarms.List(), Damage: s.Audit.Damage()}
	w := &recordLines{each: func(r audit.Record) {
		if r.Time.Before(from) || !r.Time.Before(to) {
			return
		}
		if n.More = len(n.Records) >= mostIncidentRecords; !n.More {
			n.Records = append(n.Records, incidentRecord(&r))
		}
	}}
	head, err := s.Audit.Export(w)
	if err != nil {
		return n, fmt.Errorf("read the audit log: %w", err)
	}
	n.Head = head.String()
	return n, nil
}

// recordLines takes an audit log as it is exported, and gives away its records. A line that
// can't be read is left out: whether a log is whole, its own verification says.
type recordLines struct {
	rest []byte
	each func(audit.Record)
}

// Write implements io.Writer.
func (w *recordLines) Write(p []byte) (int, error) {
	w.rest = append(w.rest, p...)
	for {
		line, rest, ok := bytes.Cut(w.rest, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		_, body, _ := bytes.Cut(line, []byte(" "))
		var r audit.Record
		if json.Unmarshal(body, &r) == nil {
			w.each(r)
		}
		w.rest = rest
	}
}

// Incident returns what all nodes wrote down in a span of time.
func (c *Client) Incident(ctx context.Context, agency string, from, to time.Time, reason string) (IncidentRecords, error) {
	in := incidentQuery{Agency: agency, From: from, To: to, Reason: reason}
	return get[IncidentRecords](ctx, c, incidentPath, in.values())
}
