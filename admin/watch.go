package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"mailcutover/admin/peer"
	"mailcutover/rollback/operation"
	"mailcutover/routing"
)

// Operations is a list of them.
type Operations struct {
	Operations []Operation `json:"operations"`
	Unreadable string      `json:"unreadable,omitempty" doc:"What could not be read: entries of the journal, or the table"`
}

func (s *Server) registerOperations(api huma.API) {
	tags := []string{"operations"}
	handle(s, api, huma.Operation{
		OperationID: "list-operations", Method: http.MethodGet, Path: "/v1/operations", Summary: "The operations of all nodes that the table still has, and those of this node's journal, the newest last", Tags: tags,
	}, func(ctx context.Context, in *struct {
		Agency string `query:"agency" doc:"Only those of this agency"`
	}) (*reply[Operations], error) {
		ops, err := s.allOperations(ctx)
		out := &reply[Operations]{Body: Operations{Operations: []Operation{}, Unreadable: errorText(err)}}
		for _, op := range ops {
			if in.Agency == "" || slices.Contains(op.Agencies, routing.AgencyID(in.Agency)) {
				out.Body.Operations = append(out.Body.Operations, operationView(op, s.running(op.ID)))
			}
		}
		return out, nil
	})
	handle(s, api, huma.Operation{
		OperationID: "show-operation", Method: http.MethodGet, Path: "/v1/operations/{id}", Summary: "One operation", Tags: tags,
	}, func(ctx context.Context, in *operationID) (*reply[Operation], error) {
		v, l, err := s.operation(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		if l == nil {
			v = s.fromRunner(ctx, v)
		}
		return &reply[Operation]{Body: v}, nil
	})
	op := huma.Operation{
		OperationID: "watch-operation", Method: http.MethodGet, Path: "/v1/operations/{id}/events", Tags: tags,
		Summary:     "Progress of an operation",
		Description: "Server-sent events: the operation as it is now, again after each change and once a second while its agencies are closed, until it has ended, or is no longer under way on this node; then the stream ends. Of one that another node carries out, what that node says, or else the table's record.",
		Responses: map[string]*huma.Response{"200": {
			Description: "Events named operation; their data is the operation",
			Content: map[string]*huma.MediaType{"text/event-stream": {
				Schema: api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Operation](), true, "Operation"),
			}},
		}},
	}
	handle(s, api, op, func(ctx context.Context, in *operationID) (*huma.StreamResponse, error) {
		v, l, err := s.operation(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		if l == nil {
			v = s.fromRunner(ctx, v)
		}
		return &huma.StreamResponse{Body: func(ctx huma.Context) { s.stream(ctx, v, l) }}, nil
	})
	s.registerOperate(api)
}

// fromRunner returns what the node says that carries an operation out: only there it is known
// what is waited for. v, which the table has, if that node doesn't answer or is this one.
func (s *Server) fromRunner(ctx context.Context, v Operation) Operation {
	if v.Ended || v.Node == "" || strings.EqualFold(v.Node, s.Node) || s.Peers == nil || requestOf(ctx).peer != "" {
		return v
	}
	m, ok := s.Replica.State().Member(routing.NodeID(v.Node))
	if !ok || m.Evicted {
		return v
	}
	call := peer.Call{Method: http.MethodGet, Path: "/v1/operations/" + url.PathEscape(v.ID)}
	elsewhere(ctx, s, []peer.Member{{Node: v.Node, Address: m.Address}}, call, func(_ string, theirs Operation) {
		if theirs.Running = false; theirs.ID == v.ID && theirs.Node == v.Node { // running says: here
			v = theirs
		}
	})
	return v
}

type operationID struct {
	ID string `path:"id" maxLength:"64"`
}

func (s *Server) running(id routing.OperationID) bool {
	l := s.operations.find(id)
	if l == nil {
		return false
	}
	_, running, _, _ := l.look()
	return running
}

// operation returns an operation, and its progress if this process started it.
func (s *Server) operation(ctx context.Context, id string) (Operation, *live, error) {
	if l := s.operations.find(routing.OperationID(id)); l != nil {
		op, running, _, err := l.look()
		v := operationView(op, running)
		if v.Error == "" {
			v.Error = errorText(err)
		}
		return v, l, nil
	}
	ops, err := s.allOperations(ctx)
	for _, op := range ops {
		if string(op.ID) == id {
			return operationView(op, false), nil, nil
		}
	}
	if err != nil {
		return Operation{}, nil, err
	}
	return Operation{}, nil, notFound("see mailcutover operation list", "no operation %q in the table or in this node's journal", id)
}

// allOperations returns this node's operations and those that the table has of others, the
// newest last. What could not be read is an error beside the others.
func (s *Server) allOperations(ctx context.Context) ([]operation.Operation, error) {
	ctx, cancel := context.WithTimeout(ctx, tableLook)
	defer cancel()
	all, err := s.Runner.List()
	mine := make(map[routing.OperationID]int, len(all))
	for i := range all {
		mine[all[i].ID] = i
	}
	records, tableErr := s.Table.Operations(ctx)
	for i := range records {
		op := fromTable(&records[i])
		at, known := mine[op.ID]
		switch {
		case !known:
			all = append(all, op)
		case !all[at].Step.Ended() && !s.running(op.ID): // another node has gone on with it
			all[at] = op
		}
	}
	slices.SortStableFunc(all, func(a, b operation.Operation) int { return a.Started.Compare(b.Started) })
	return all, errors.Join(err, tableErr)
}

// tableLook bounds what a list waits for the table.
const tableLook = 2 * time.Second

// fromTable returns the operation of a table's record. A detail that can't be read leaves
// out what only it has.
func fromTable(rec *routing.Operation) operation.Operation {
	var o operation.Operation
	if err := json.Unmarshal([]byte(rec.Detail), &o); err != nil {
		o = operation.Operation{}
	}
	o.ID, o.Kind, o.Agency, o.Agencies, o.Plan = rec.ID, operation.Kind(rec.Kind), rec.Agency, rec.Agencies, rec.Plan
	o.Step, o.Runner, o.Instance, o.Emergency = operation.Step(rec.Step), rec.Runner, rec.Instance, rec.Emergency
	o.Who, o.Reason, o.Started, o.Deadline = rec.Who, rec.Reason, rec.Started, rec.Deadline
	return o
}

// stream writes an operation's progress as server-sent events.
func (s *Server) stream(ctx huma.Context, v Operation, l *live) {
	ctx.SetHeader("Content-Type", "text/event-stream")
	ctx.SetStatus(http.StatusOK)
	w := ctx.BodyWriter().(http.ResponseWriter)
	control := http.NewResponseController(w)
	send := func(v Operation) bool {
		b, err := json.Marshal(v)
		if err == nil {
			_, err = fmt.Fprintf(w, "event: operation\ndata: %s\n\n", b)
		}
		if err == nil {
			err = control.Flush()
		}
		return err == nil
	}
	second := time.NewTicker(time.Second)
	defer second.Stop()
	if l == nil {
		for send(v) && !v.Ended {
			select {
			case <-second.C:
			case <-s.operations.closing:
				return
			case <-ctx.Context().Done():
				return
			}
			if rec, ok := s.Replica.State().Operation(routing.OperationID(v.ID)); ok {
				v = s.fromRunner(ctx.Context(), operationView(fromTable(&rec), false))
			} else if v, _, _ = s.operation(ctx.Context(), v.ID); v.ID == "" {
				return
			}
		}
		return
	}
	for last := false; ; {
		op, running, changed, err := l.look()
		v := operationView(op, running)
		if v.Error == "" {
			v.Error = errorText(err)
		}
		if !send(v) || !running || last {
			return
		}
		select {
		case <-changed:
		case <-second.C:
		case <-s.operations.closing:
			last = true // all operations have ended: how, is still to be said
		case <-ctx.Context().Done():
			return
		}
	}
}
