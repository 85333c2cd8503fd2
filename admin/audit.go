package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"mailcutover/audit"
	"mailcutover/audit/checkpoint"
)

// AuditHead is where a node's audit log ends.
type AuditHead struct {
	Head   string `json:"head" doc:"NODE/CHAIN/NUMBER/HASH: keep it elsewhere, mailcutover audit verify compares a log with it" example:"mx1.example.org/K7QX2M4BZC5DV3TN/17/..."`
	Number uint64 `json:"number" doc:"Of the last record; 0: there is none yet"`
	Damage string `json:"damage,omitempty" doc:"What the last start found wrong with the log"`
}

// AuditHeads are the copies that the table has of all nodes' heads.
type AuditHeads struct {
	Heads []AuditCopy `json:"heads"`
}

// AuditCopy is one of them.
type AuditCopy struct {
	Node string `json:"node"`
	Head string `json:"head"`
	Last bool   `json:"last" doc:"The newest of this node; older ones are of logs that it doesn't have any more"`
}

// Me is the token that a call was made with.
type Me struct {
	Token    string   `json:"token"`
	Person   string   `json:"person"`
	Roles    []string `json:"roles" doc:"None: everything, which only a lab allows"`
	Agencies []string `json:"agencies,omitempty" doc:"That it may act on; absent: all"`
}

// AuditKey is the prefix of the documents with the heads of nodes' audit logs: AuditKey and
// the node's name in lower case. Their text is one head in each line, the newest last.
const AuditKey = "audit/"

// CheckpointsKey is the prefix of the documents with nodes' signed checkpoints: CheckpointsKey and
// the node's name in lower case. Their text is one checkpoint in each line, the newest last.
const CheckpointsKey = "audit-checkpoints/"

// Checkpoints signs the node's audit log; *checkpoint.Keeper does.
type Checkpoints interface {
	Make(ctx context.Context) (checkpoint.Checkpoint, error)
}

// AuditCheckpoint is a node's signed word of where its audit log stood.
type AuditCheckpoint struct {
	Node   string    `json:"node"`
	Count  uint64    `json:"count" doc:"Of the node's checkpoints, from 1"`
	Time   time.Time `json:"time" doc:"By the node's clock"`
	Record uint64    `json:"record" doc:"The last one that it covers"`
	Head   string    `json:"head"`
	Key    string    `json:"key" doc:"Name of the key that signed"`
	Line   string    `json:"line" doc:"The whole checkpoint: keep it elsewhere, mailcutover audit verify --checkpoints compares a log with it"`
}

// AuditCheckpoints are those that the table has of all nodes: of each the last ones.
type AuditCheckpoints struct {
	Checkpoints []AuditCheckpoint `json:"checkpoints"`
}

func checkpointView(c *checkpoint.Checkpoint) AuditCheckpoint {
	return AuditCheckpoint{Node: c.Head.Node, Count: c.Count, Time: c.Time, Record: c.Head.Number, Head: c.Head.String(), Key: string(c.Key), Line: c.String()}
}

const auditPath = "/v1/audit"

// auditType is the content type of an exported log: a digest and a JSON value in each line.
const auditType = "text/plain; charset=utf-8"

func (s *Server) registerAudit(api huma.API) {
	tags := []string{"audit"}
	handle(s, api, huma.Operation{
		OperationID: "audit-head", Method: http.MethodGet, Path: auditPath + "/head", Summary: "Where this node's audit log ends", Tags: tags,
	}, func(context.Context, *struct{}) (*reply[AuditHead], error) {
		h := s.Audit.Head()
		return &reply[AuditHead]{Body: AuditHead{Head: h.String(), Number: h.Number, Damage: s.Audit.Damage()}}, nil
	})
	handle(s, api, huma.Operation{
		OperationID: "audit-heads", Method: http.MethodGet, Path: auditPath + "/heads", Summary: "The heads of all nodes' audit logs, as the table has them", Tags: tags,
	}, func(context.Context, *struct{}) (*reply[AuditHeads], error) {
		out := &reply[AuditHeads]{Body: AuditHeads{Heads: []AuditCopy{}}}
		for _, d := range s.Replica.State().Documents(AuditKey) {
			lines := strings.Fields(d.Text)
			for i, line := range lines {
				out.Body.Heads = append(out.Body.Heads, AuditCopy{Node: strings.TrimPrefix(d.Key, AuditKey), Head: line, Last: i == len(lines)-1})
			}
		}
		return out, nil
	})
	handle(s, api, huma.Operation{
		OperationID: "list-checkpoints", Method: http.MethodGet, Path: auditPath + "/checkpoints", Summary: "The last signed checkpoints of all nodes' audit logs, as the table has them", Tags: tags,
	}, func(context.Context, *struct{}) (*reply[AuditCheckpoints], error) {
		out := &reply[AuditCheckpoints]{Body: AuditCheckpoints{Checkpoints: []AuditCheckpoint{}}}
		for _, d := range s.Replica.State().Documents(CheckpointsKey) {
			all, err := checkpoint.Read(strings.NewReader(d.Text))
			if err != nil {
				return nil, problem(http.StatusConflict, "see mailcutover audit verify for what the node's own file has", "the table's checkpoints of node %s can't be read: %s", strings.TrimPrefix(d.Key, CheckpointsKey), err)
			}
			for i := range all {
				out.Body.Checkpoints = append(out.Body.Checkpoints, checkpointView(&all[i]))
			}
		}
		return out, nil
	})
	handle(s, api, huma.Operation{
		OperationID: "sign-audit", Method: http.MethodPost, Path: auditPath + "/checkpoints", Summary: "Sign this node's audit log as it stands now", Tags: tags, DefaultStatus: http.StatusCreated,
		Description: "It changes nothing else, and needs no reason. The answer's line can be kept elsewhere.",
	}, func(ctx context.Context, _ *struct{ Mutation }) (*reply[AuditCheckpoint], error) {
		if s.Checkpoints == nil {
			return nil, noSigningKey(checkpoint.ErrNoKey)
		}
		ctx, cancel := context.WithTimeout(ctx, changeTimeout)
		defer cancel()
		c, err := s.Checkpoints.Make(ctx)
		switch {
		case errors.Is(err, checkpoint.ErrNoKey):
			return nil, noSigningKey(err)
		case err != nil:
			return nil, problem(http.StatusConflict, "see mailcutover alarm list", "%s", err)
		}
		return &reply[AuditCheckpoint]{Body: checkpointView(&c)}, nil
	})
	handle(s, api, huma.Operation{
		OperationID: "who-am-i", Method: http.MethodGet, Path: "/v1/token", Summary: "The token that the call was made with, and what it may be used for", Tags: []string{"node"},
	}, func(ctx context.Context, _ *struct{}) (*reply[Me], error) {
		who := callerOf(ctx)
		return &reply[Me]{Body: Me{Token: who.token, Person: who.person, Roles: texts(who.roles), Agencies: texts(who.agencies)}}, nil
	})
	handle(s, api, huma.Operation{
		OperationID: "export-audit", Method: http.MethodGet, Path: auditPath + "/export", Tags: tags,
		Summary:     "This node's audit log, from its first record on",
		Description: "A record in each line: the SHA-256 of its JSON, a space, the JSON. mailcutover audit verify checks it, offline. A log that is damaged ends before the first bad record, with 409.",
		Responses: map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{
			"text/plain": {Schema: &huma.Schema{Type: huma.TypeString}},
		}}},
	}, func(context.Context, *struct{}) (*struct {
		ContentType string `header:"Content-Type"`
		Head        string `header:"Mailcutover-Audit-Head" doc:"Of the last record"`
		Body        []byte
	}, error) {
		var out bytes.Buffer
		head, err := s.Audit.Export(&out)
		if err != nil {
			return nil, problem(http.StatusConflict, "copy the folder audit of the node's data, and see mailcutover audit verify DIRECTORY", "the audit log can't be exported to its end: %s", err)
		}
		return &struct {
			ContentType string `header:"Content-Type"`
			Head        string `header:"Mailcutover-Audit-Head" doc:"Of the last record"`
			Body        []byte
		}{auditType, head.String(), out.Bytes()}, nil
	})
}

func noSigningKey(err error) error {
	return problem(http.StatusConflict, "mailcutover audit key new makes a key; set audit.signing_key_file, and reload", "%s", err)
}

// AuditCheckpoints returns the last checkpoints of all nodes, as the table has them.
func (c *Client) AuditCheckpoints(ctx context.Context) ([]AuditCheckpoint, error) {
	out, err := get[AuditCheckpoints](ctx, c, auditPath+"/checkpoints", nil)
	return out.Checkpoints, err
}

// SignAudit signs the node's audit log as it stands now.
func (c *Client) SignAudit(ctx context.Context) (AuditCheckpoint, error) {
	return post[AuditCheckpoint](ctx, c, auditPath+"/checkpoints", struct{}{})
}

// AuditHead says where the node's audit log ends.
func (c *Client) AuditHead(ctx context.Context) (AuditHead, error) {
	return get[AuditHead](ctx, c, auditPath+"/head", nil)
}

// AuditHeads returns the heads that the table has.
func (c *Client) AuditHeads(ctx context.Context) ([]AuditCopy, error) {
	out, err := get[AuditHeads](ctx, c, auditPath+"/heads", nil)
	return out.Heads, err
}

// Me returns whose token the client uses, and what for.
func (c *Client) Me(ctx context.Context) (Me, error) { return get[Me](ctx, c, "/v1/token", nil) }

// AuditExport writes the node's audit log to w, once it is verified, and returns its head.
func (c *Client) AuditExport(ctx context.Context, w io.Writer) (audit.Head, error) {
	ctx, cancel := context.WithTimeout(ctx, listReadTimeout)
	defer cancel()
	res, err := c.send(ctx, http.MethodGet, auditPath+"/export", url.Values{}, "", nil)
	if err != nil {
		return audit.Head{}, err
	}
	said := res.Header.Get("Mailcutover-Audit-Head")
	b, err := read(res)
	if err != nil {
		return audit.Head{}, err
	}
	report, err := audit.Verify(bytes.NewReader(b))
	if err != nil {
		return audit.Head{}, fmt.Errorf("what the node sent: %w", err)
	}
	if report.Head.Number > 0 && report.Head.String() != said {
		return audit.Head{}, fmt.Errorf("%w: the audit log ends at %s, the node said %s", ErrUnreachable, report.Head, said)
	}
	if _, err := w.Write(b); err != nil {
		return audit.Head{}, fmt.Errorf("write the audit log: %w", err)
	}
	return report.Head, nil
}
