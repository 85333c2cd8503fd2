package admin

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"mailcutover/rollback/operation"
	"mailcutover/routing"
)

// beginPatience is how long a call waits to say that an operation was refused. One that
// the table keeps waiting longer is answered as started.
const beginPatience = 5 * time.Second

// keptOperations is how many ended ones are remembered with their last progress; the
// journal has all of them.
const keptOperations = 100

// errStopping is why an operation is aborted when the node stops.
var errStopping = operation.ErrStopping

// operations runs operations in the background and lets others watch.
type operations struct {
	runner Runner
	log    *slog.Logger
	base   context.Context // of all operations; ends only in stop
	abort  context.CancelCauseFunc
	runs   sync.WaitGroup

	mu       sync.Mutex
	stopping bool
	live     map[routing.OperationID]*live
	ended    []routing.OperationID // oldest first
	closing  chan struct{}         // closed when streams shall end
}

// live is an operation that this process started.
type live struct {
	mu      sync.Mutex
	op      operation.Operation
	err     error
	running bool
	changed chan struct{} // closed and replaced at each change
}

func newOperations(r Runner, log *slog.Logger) *operations {
	o := &operations{runner: r, log: log, live: make(map[routing.OperationID]*live), closing: make(chan struct{})}
	o.base, o.abort = context.WithCancelCause(context.Background())
	return o
}

// look returns the operation as it is now, and a channel that is closed at its next change.
func (l *live) look() (op operation.Operation, running bool, changed <-chan struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.op, l.running, l.changed, l.err
}

func (l *live) set(op operation.Operation, running bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.op, l.running, l.err = op, running, err
	close(l.changed)
	l.changed = make(chan struct{})
}

// start begins an operation. It returns once the agencies are closed for it, or with
// the reason why they are not.
func (o *operations) start(ctx context.Context, req operation.Request) (operation.Operation, bool, error) {
	l := &live{running: true, changed: make(chan struct{})}
	req.Progress = func(op operation.Operation) {
		o.know(op.ID, l)
		l.set(op, true, nil)
	}
	o.mu.Lock()
	if o.stopping {
		o.mu.Unlock()
		return operation.Operation{}, false, errStopping
	}
	o.runs.Go(func() {
		op, err := o.runner.Run(o.base, req)
		l.set(op, false, err)
		o.forget(op.ID)
		if err != nil {
			o.log.Warn("operation ended with an error", "operation", op.ID, "kind", req.Kind, "agency", req.Agency, "step", op.Step, "error", err)
		} else {
			o.log.Info("operation ended", "operation", op.ID, "kind", req.Kind, "agency", req.Agency, "step", op.Step, "closed", op.ClosedFor().String())
		}
	})
	o.mu.Unlock()
	patience := time.NewTimer(beginPatience)
	defer patience.Stop()
	for {
		op, running, changed, err := l.look()
		switch {
		case !running && err != nil && (op.ID == "" || op.Step == operation.StepRefused):
			return op, false, err
		case !running, !op.Closed.IsZero():
			return op, running, nil
		}
		select {
		case <-changed:
		case <-patience.C:
			if op.ID != "" {
				return op, true, nil
			}
			patience.Reset(beginPatience)
		case <-ctx.Done():
			return op, running, ctx.Err()
		}
	}
}

func (o *operations) know(id routing.OperationID, l *live) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.live[id] = l
}

// forget drops the oldest of the ended operations.
func (o *operations) forget(id routing.OperationID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.live[id] == nil {
		return
	}
	o.ended = append(o.ended, id)
	if len(o.ended) > keptOperations {
		delete(o.live, o.ended[0])
		o.ended = o.ended[1:]
	}
}

func (o *operations) find(id routing.OperationID) *live {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.live[id]
}

// stop waits for the operations under way. When two thirds of the time that ctx leaves
// have passed, it aborts those that aren't committed, and waits for that.
func (o *operations) stop(ctx context.Context) {
	o.mu.Lock()
	first := !o.stopping
	o.stopping = true
	o.mu.Unlock()
	share, cancel := context.WithCancel(ctx)
	if end, ok := ctx.Deadline(); ok {
		share, cancel = context.WithTimeout(ctx, time.Until(end)*2/3)
	}
	defer cancel()
	defer context.AfterFunc(share, func() { o.abort(errStopping) })()
	o.runs.Wait()
	if first {
		close(o.closing)
	}
}
