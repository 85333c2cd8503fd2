package daemon

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"mailcutover/admin"
	"mailcutover/internal/platformtest"
	"mailcutover/rollback/operation"
)

// A stop while an operation waits for a dot: there is no new mail at once, the operation
// is aborted within the grace period, who watches it learns why, and the agency is open
// for the next start.
func TestStopDuringAnOperation(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	a, err := b.api.Agency(t.Context(), "health")
	if err != nil {
		t.Fatal(err)
	}
	if a, err = b.api.Arm(t.Context(), "health", a.Epoch, "test"); err != nil {
		t.Fatal(err)
	}
	b.a.SetScript(platformtest.On(".", platformtest.Reaction{Delay: time.Minute}))
	b.underWay(anna)
	op, err := b.api.Start(t.Context(), operation.Cutover, "health", a.Epoch, "test")
	if err != nil {
		t.Fatal(err)
	}
	type end struct {
		op  admin.Operation
		err error
	}
	watched := make(chan end, 1)
	watching := make(chan struct{})
	go func() {
		begun := sync.OnceFunc(func() { close(watching) })
		last, err := b.api.Watch(context.Background(), op.ID, func(admin.Operation) { begun() })
		watched <- end{last, err}
	}()
	<-watching
	const grace = 15 * time.Second // an abort comes after two thirds of it
	ctx, cancel := context.WithTimeout(t.Context(), grace)
	defer cancel()
	began := time.Now()
	stopped := make(chan error, 1)
	go func() { stopped <- b.Shutdown(ctx) }()
	b.until("no new mail", func() bool {
		c, err := net.Dial("tcp", b.Addr("mx").String())
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	select {
	case w := <-watched:
		t.Fatalf("new mail was taken until the operation was aborted: %+v", w)
	default:
	}
	if w := <-watched; w.err != nil || w.op.Step != string(operation.StepAborted) || !strings.Contains(w.op.Error, "the node is stopping") {
		t.Errorf("watched: %+v, %v", w.op, w.err)
	}
	if took := time.Since(began); took > 10*grace { // the transaction takes longer
		t.Errorf("the operation ended after %s", took)
	}
	<-stopped // with or without an error: a transaction outlasted the grace period
	b.a.SetScript(nil)
	b.start()
	if a, err = b.api.Agency(t.Context(), "health"); err != nil || !a.Open || a.Phase != "source" || a.Operation != "" {
		t.Errorf("after the next start: %+v, %v", a, err)
	}
}
