package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"mailcutover/routing"
)

// Operations is a list of them.
type Operations struct {
	Operations []Operation `json:"operations"`
	Unreadable string      `json:"unreadable,omitempty" doc:"Journal entries that can't be read"`
}

func (s *Server) registerOperations(api huma.API) {
	tags := []string{"operations"}
	handle(s, api, huma.Operation{
		OperationID: "list-operations", Method: http.MethodGet, Path: "/v1/operations", Summary: "The operations of this node's journal, the newest last", Tags: tags,
	}, func(_ context.Context, in *struct {
		Agency string `query:"agency" doc:"Only those of this agency"`
	}) (*reply[Operations], error) {
		ops, err := s.Runner.List()
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
	}, func(_ context.Context, in *operationID) (*reply[Operation], error) {
		v, _, err := s.operation(in.ID)
		return &reply[Operation]{Body: v}, err
	})
	op := huma.Operation{
		OperationID: "watch-operation", Method: http.MethodGet, Path: "/v1/operations/{id}/events", Tags: tags,
		Summary:     "Progress of an operation",
		Description: "Server-sent events: the operation as it is now, again after each change and once a second while its agencies are closed, until it is no longer under way on this node; then the stream ends.",
		Responses: map[string]*huma.Response{"200": {
			Description: "Events named operation; their data is the operation",
			Content: map[string]*huma.MediaType{"text/event-stream": {
				Schema: api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Operation](), true, "Operation"),
			}},
		}},
	}
	handle(s, api, op, func(_ context.Context, in *operationID) (*huma.StreamResponse, error) {
		v, l, err := s.operation(in.ID)
		if err != nil {
			return nil, err
		}
		return &huma.StreamResponse{Body: func(ctx huma.Context) { s.stream(ctx, v, l) }}, nil
	})
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
func (s *Server) operation(id string) (Operation, *live, error) {
	if l := s.operations.find(routing.OperationID(id)); l != nil {
		op, running, _, err := l.look()
		v := operationView(op, running)
		if v.Error == "" {
			v.Error = errorText(err)
		}
		return v, l, nil
	}
	ops, err := s.Runner.List()
	for _, op := range ops {
		if string(op.ID) == id {
			return operationView(op, false), nil, nil
		}
	}
	if err != nil {
		return Operation{}, nil, err
	}
	return Operation{}, nil, notFound("see mailcutover operation list", "no operation %q in this node's journal", id)
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
	if l == nil {
		send(v)
		return
	}
	second := time.NewTicker(time.Second)
	defer second.Stop()
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
