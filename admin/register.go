package admin

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// apiVersion is that of the document: it grows with every change that callers can notice.
const apiVersion = "1.6.0"

const importPath = "/v1/mailboxes/import"

// register makes all calls known to the mux and to the document.
func (s *Server) register() {
	s.registerHealth()
	config := huma.DefaultConfig("mailcutover", apiVersion)
	config.Info.Description = "State and operations of one mailcutover node. Every change names a person (that of the token) and a reason. Errors are problem documents (RFC 9457)."
	config.DocsPath, config.SchemasPath = "", "" // the built-in pages load scripts from other hosts
	config.CreateHooks = nil                     // no links to schemas in answers
	config.Transformers = []huma.Transformer{unify}
	config.RejectUnknownQueryParameters = true
	format := huma.Format{Marshal: writeJSON, Unmarshal: json.Unmarshal}
	config.Formats = map[string]huma.Format{"application/json": format, "json": format}
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token": {Type: "http", Scheme: "bearer", Description: "Made by mailcutover token new; the node's configuration has its SHA-256."},
	}
	config.Security = []map[string][]string{{"token": {}}}
	api := humago.New(s.mux, config)
	api.UseMiddleware(func(ctx huma.Context, next func(huma.Context)) { next(statusContext{ctx}) })

	s.registerAgencies(api)
	s.registerOperations(api)
	s.registerControl(api)
	s.registerLocalLocks(api)
	s.registerProposals(api)
	s.registerNodes(api)
	s.registerBootstrap(api)
	s.registerBackup(api)
	s.registerSupport(api)
	s.registerRestore(api)
	s.registerAudit(api)
	s.registerMailboxes(api)
	s.registerImport(api)
	s.registerRemap(api)
	s.registerLists(api)
	s.registerDirectory(api)
	s.registerDomains(api)
	s.registerRelease(api)
	s.registerNode(api)
	s.registerSpool(api)
	s.registerTrace(api)
	s.registerRetained(api)
	s.registerSessions(api)
	s.registerRouteLogin(api)
	s.registerRecall(api)
	s.registerVerify(api)
	s.registerRehearsals(api)
	s.registerCanaries(api)
	s.registerNotices(api)
	s.registerIncident(api)
	s.registerWaves(api)

	delete(config.Components.Schemas.Map(), "ErrorModel") // huma's own, which unify replaces
	delete(config.Components.Schemas.Map(), "ErrorDetail")
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, problem(http.StatusNotFound, "see /openapi.yaml", "nothing is served at %s %s", r.Method, r.URL.Path))
	})
}

// writeJSON is encoding/json without the escapes that only a web page needs.
func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// reply is an answer with a body.
type reply[T any] struct {
	Body T
}

// handle registers one call. What f returns as an error becomes a Problem; what was not
// foreseen is logged.
func handle[I, O any](s *Server, api huma.API, op huma.Operation, f func(context.Context, *I) (*O, error)) {
	mustHaveRight(op.OperationID)
	describe(api, &op)
	huma.Register(api, op, func(ctx context.Context, in *I) (*O, error) {
		requestOf(ctx).operation = op.OperationID
		if err := s.authorize(ctx, op.OperationID, in); err != nil {
			return nil, s.problem(ctx, err)
		}
		out, err := f(ctx, in)
		if err != nil {
			s.recordFailure(ctx, err)
			return nil, s.problem(ctx, err)
		}
		return out, nil
	})
}

// problem is asProblem, and logs what is not foreseen.
func (s *Server) problem(ctx context.Context, err error) error {
	p, foreseen := asProblem(err)
	if !foreseen {
		s.Logger.ErrorContext(ctx, "call failed", "request", requestOf(ctx).id, "error", err)
	}
	return p
}

// describe fills in what all calls have in common.
func describe(api huma.API, op *huma.Operation) {
	op.BodyReadTimeout = -1 // admit has read the body
	op.MaxBodyBytes = maxListBytes
	if op.Responses == nil {
		op.Responses = make(map[string]*huma.Response)
	}
	op.Responses["default"] = &huma.Response{
		Description: "The call failed, and why",
		Content: map[string]*huma.MediaType{
			problemType: {Schema: api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Problem](), true, "Problem")},
		},
	}
}

// Mutation is what every call that changes something may say.
type Mutation struct {
	IdempotencyKey string `header:"Idempotency-Key" doc:"Repeating a call with the same key and content acts once, and gives the first answer again" maxLength:"200"`
}

// reasoned is the body of a call that changes an agency.
type reasoned struct {
	Reason        string `json:"reason" minLength:"1" maxLength:"1000" doc:"Why; stands in the table's log and the journal"`
	ExpectedEpoch string `json:"expected_epoch,omitempty" doc:"Epoch of the record that you have seen; without it 428, if it is another 412" example:"1.7"`
}

func notFound(hint, format string, args ...any) error {
	return problem(http.StatusNotFound, hint, format, args...)
}
