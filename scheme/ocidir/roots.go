package ocidir

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types/errs"
)

// rootsName holds the entries of index.json as we last committed it, so that a program that saves an index it read
// before our commit does not make them disappear without a trace. A copy for every commit would double what is written,
// and a hard link would change with the file when it is written in place. So it is a copy of index.json as it was once,
// and a line for every commit since:
//
//	{"index":MARK,"snapshot":SIZE}\n  SIZE bytes of index.json\n
//	{"index":MARK,"add":[ENTRY…],"drop":[{"digest":…,"tag":…}…]}\n  …
//
// The last MARK is of the file that index.json was after our last commit; if index.json is another one now somebody else
// changed it. It is not synced: after a power loss it may lag, and then entries that we had removed may be taken for
// dropped.
const rootsName = stateDir + "/roots"

// rootsSlack is how many bytes of lines there may be at least before they are folded into a new copy.
const rootsSlack = 256 << 10

// maxRoots bounds what is read into memory of the file; ours are smaller. A larger one says nothing, and is made anew.
const maxRoots = 4 * maxIndexSize

// rootsHead is the first line.
type rootsHead struct {
	Index    mark  `json:"index"`
	Snapshot int64 `json:"snapshot"`
}

// rootsLine is one commit.
type rootsLine struct {
	Index mark              `json:"index"`
	Add   []json.RawMessage `json:"add,omitempty"`
	Drop  []rootKey         `json:"drop,omitempty"`
}

// rootKey names an entry: several may have one digest.
type rootKey struct {
	Digest digest.Digest `json:"digest"`
	Tag    string        `json:"tag,omitempty"`
}

func (e *entry) key() rootKey {
	k := rootKey{Digest: e.digest}
	if tag, exact := e.tag(); exact {
		k.Tag = tag
	}
	return k
}

// journal is what is known of the file. It belongs to who has the lock.
type journal struct {
	id    fileID // of the file when this was known; zero when nothing is
	prior int64  // where the last line begins; end when there is only the head
	end   int64  // where the last whole line ends
	size  int64  // of all lines
	last  mark   // of the last line, or the head
	prev  mark   // of the one before it
}

// readJournal learns how the file ends, if it changed since. Without a file, or with one that is no such file, nothing
// is known: the journal is zero.
func (l *layout) readJournal() (journal, error) {
	old := l.journal
	l.journal = journal{}
	f, id, err := l.vol.openFile(rootsName)
	if absent(err) || errors.Is(err, errs.ErrCorrupt) {
		return journal{}, nil
	}
	if err != nil {
		return journal{}, err
	}
	defer f.Close()
	j := old
	if id != old.id {
		// Another process added lines, most likely; or it took the last one back, and added others.
		same := id.size <= maxRoots && id.dev == old.id.dev && id.ino == old.id.ino && old.prior < old.end && id.size >= old.end
		if same {
			j, err = old.follow(f, id.size)
		}
		if !same || err != nil {
			j, err = wholeJournal(f, id.size)
		}
		if err != nil {
			return journal{}, nil //nolint:nilerr // it is made anew
		}
		j.id = id
	}
	l.journal = j
	return j, nil
}

// follow reads the lines behind those that are known. The last one of these must be there still.
func (j journal) follow(f *os.File, size int64) (journal, error) {
	raw, err := readAt(f, j.prior, size)
	if err != nil {
		return j, err
	}
	next := journal{prior: j.prior, end: j.prior, size: j.size - (j.end - j.prior), last: j.prev, prev: j.prev}
	seen := false
	next = next.lines(raw, func(line rootsLine, end int64) { seen = seen || end == j.end && line.Index == j.last })
	if !seen {
		return j, errors.New("the last line is another one")
	}
	return next, nil
}

func wholeJournal(f *os.File, size int64) (journal, error) {
	if size > maxRoots {
		return journal{}, errTooLarge
	}
	head, err := readAt(f, 0, min(size, 4096))
	if err != nil {
		return journal{}, err
	}
	j, _, err := parseHead(head, size)
	if err != nil {
		return j, err
	}
	raw, err := readAt(f, j.end, size)
	return j.lines(raw, nil), err
}

// parseHead reads the first line of a file of size bytes, and says where its copy of index.json begins. It ends a line
// feed before the journal does.
func parseHead(raw []byte, size int64) (j journal, start int64, err error) {
	var head rootsHead
	start = int64(bytes.IndexByte(raw, '\n') + 1)
	if start == 0 || json.Unmarshal(raw[:start], &head) != nil || head.Snapshot < 0 || head.Snapshot >= size-start {
		return j, 0, errors.New("it has no snapshot")
	}
	end := start + head.Snapshot + 1
	return journal{prior: end, end: end, last: head.Index, prev: head.Index}, start, nil
}

// lines adds the lines of raw to a journal that ends where raw begins, up to the first that is none, as after a crash,
// and calls each with them and where they end.
func (j journal) lines(raw []byte, each func(line rootsLine, end int64)) journal {
	for len(raw) > 0 {
		n := bytes.IndexByte(raw, '\n') + 1
		var line rootsLine
		if n == 0 || json.Unmarshal(raw[:n], &line) != nil {
			break
		}
		j.prior, j.end, j.size = j.end, j.end+int64(n), j.size+int64(n)
		j.prev, j.last = j.last, line.Index
		if each != nil {
			each(line, j.end)
		}
		raw = raw[n:]
	}
	return j
}

var errTooLarge = fmt.Errorf("it has more than %d bytes", int64(maxRoots))

func readAt(f *os.File, from, to int64) ([]byte, error) {
	raw := make([]byte, max(to-from, 0))
	_, err := io.ReadFull(io.NewSectionReader(f, from, to-from), raw)
	return raw, err
}

// missed returns the entries of our last commit that now lacks, if somebody else changed the index since.
func (l *layout) missed(now *cached) ([]vanishedRoot, error) {
	f, id, err := l.vol.openFile(rootsName)
	if absent(err) || errors.Is(err, errs.ErrCorrupt) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if id.size > maxRoots {
		return nil, nil
	}
	raw, err := readAt(f, 0, id.size)
	if err != nil {
		return nil, err
	}
	j, start, err := parseHead(raw, id.size)
	if err != nil {
		return nil, nil //nolint:nilerr // it says nothing any more, and is made anew by the next commit
	}
	var lines []rootsLine
	snapshot := raw[start : j.end-1]
	j = j.lines(raw[j.end:], func(line rootsLine, _ int64) { lines = append(lines, line) })
	if m := now.id.mark(); m == j.last || m == j.prev { // prev: who wrote the last line died before it was true
		return nil, nil
	}
	ix, err := parseIndex(snapshot, nil)
	if err != nil {
		return nil, nil //nolint:nilerr // the same
	}
	return lost(replay(ix, lines), now.ix), nil
}

// replay returns the entries of an index after some commits.
func replay(ix *index, lines []rootsLine) map[rootKey]*entry {
	all := make(map[rootKey]*entry, len(ix.entries))
	enter := func(e *entry) {
		if e.digest != "" {
			all[e.key()] = e
		}
	}
	for _, e := range ix.entries {
		enter(e)
	}
	for _, line := range lines {
		for _, k := range line.Drop {
			delete(all, k)
		}
		for _, raw := range line.Add {
			if e, err := (&scanner{b: raw}).entry(); err == nil {
				enter(e)
			}
		}
	}
	return all
}

// lost returns what of all an index lacks.
func lost(all map[rootKey]*entry, ix *index) []vanishedRoot {
	var gone []vanishedRoot
	when := time.Now()
	for k, e := range all {
		v := vanishedRoot{desc: e.descriptor(), tag: k.Tag, when: when}
		if !v.isBack(ix) {
			gone = append(gone, v)
		}
	}
	return sortVanished(gone)
}

// notice records what somebody else dropped since our last commit. It runs under the lock.
func (l *layout) notice(now *cached) error {
	j, err := l.readJournal()
	m := now.id.mark()
	if err != nil || j.last == (mark{}) || j.last == m {
		return err
	}
	if j.prior < j.end && j.prev == m {
		return l.cutJournal(j.prior)
	}
	gone, err := l.missed(now)
	if err != nil || len(gone) == 0 {
		return err
	}
	return l.addVanished(gone, now.ix)
}

// record notes what a commit changes, before it does; undo takes that back. Where nothing says what base had, or what
// does has become long, the file is made anew.
func (l *layout) record(base *cached, d *draft, next mark) (undo func() error, err error) {
	j, err := l.readJournal()
	if err != nil {
		return nil, err
	}
	if j.last != base.id.mark() || j.size > max(rootsSlack, 2*int64(len(base.ix.raw))) {
		if j, err = l.startRoots(base); err != nil {
			return nil, err
		}
	}
	line := rootsLine{Index: next}
	for _, e := range d.dropped {
		line.Drop = append(line.Drop, e.key())
	}
	for _, e := range d.added {
		line.Add = append(line.Add, e.raw)
	}
	raw, err := json.Marshal(line)
	if err != nil {
		return nil, err
	}
	raw = append(raw, '\n')
	id, err := l.appendRoots(raw, j)
	if errors.Is(err, errShared) {
		if j, err = l.startRoots(base); err != nil {
			return nil, err
		}
		id, err = l.appendRoots(raw, j)
	}
	if err != nil {
		return nil, errors.Join(l.vol.full(err, int64(len(raw))), l.cutJournal(j.end))
	}
	n := int64(len(raw))
	l.journal = journal{id: id, prior: j.end, end: j.end + n, size: j.size + n, last: next, prev: j.last}
	return func() error { return l.cutJournal(j.end) }, nil
}

// startRoots makes the file anew: a copy of base.
func (l *layout) startRoots(base *cached) (journal, error) {
	size := int64(len(base.ix.raw))
	head, err := json.Marshal(rootsHead{Index: base.id.mark(), Snapshot: size})
	if err != nil {
		return journal{}, err
	}
	t, err := l.vol.newTemp()
	if err != nil {
		return journal{}, l.vol.full(err, size)
	}
	defer t.discard()
	for _, part := range [][]byte{append(head, '\n'), base.ix.raw, {'\n'}} {
		if _, err := t.Write(part); err != nil {
			return journal{}, l.vol.full(err, size)
		}
	}
	if err := t.rename(rootsName); err != nil {
		return journal{}, err
	}
	return l.readJournal()
}

// errShared: the file has other names, and may be that of another layout, which was copied by hard links.
var errShared = errors.New("the file has other names")

// appendRoots writes a line behind the last whole one.
func (l *layout) appendRoots(line []byte, j journal) (id fileID, err error) {
	f, err := l.vol.root.OpenFile(rootsName, os.O_WRONLY, 0)
	if err != nil {
		return id, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if links(f) > 1 {
		return id, errShared
	}
	if j.end < j.id.size { // a dead writer's
		if err := l.vol.truncate(f, rootsName, j.end); err != nil {
			return id, err
		}
	}
	if _, err := f.Seek(j.end, io.SeekStart); err != nil {
		return id, err
	}
	if _, err := l.vol.write(f, rootsName, line); err != nil {
		return id, err
	}
	return identify(f)
}

// cutJournal takes back what the file has from size on.
func (l *layout) cutJournal(size int64) error {
	l.journal = journal{}
	f, err := l.vol.root.OpenFile(rootsName, os.O_WRONLY, 0)
	if absent(err) {
		return nil // .ocisync was deleted
	}
	if err != nil {
		return err
	}
	if links(f) > 1 { // what is not ours alone is given up
		return errors.Join(f.Close(), l.vol.remove(rootsName))
	}
	return errors.Join(l.vol.truncate(f, rootsName, size), f.Close())
}

// forgetRecord takes back the last line if it is of the file with that inode, which never became index.json.
func (l *layout) forgetRecord(ino uint64) error {
	j, err := l.readJournal()
	if err != nil || j.last.Ino != ino || j.prior == j.end {
		return err
	}
	return l.cutJournal(j.prior)
}

// reportLost records what an index has, under that name, that another program replaced without knowing it.
func (l *layout) reportLost(name string) error {
	theirs, err := l.vol.root.ReadFile(name)
	if err != nil {
		return err
	}
	ix, err := parseIndex(theirs, nil)
	if err != nil {
		return nil //nolint:nilerr // it was being written, or damaged: nobody could have read anything in it
	}
	now, err := l.current(context.Background())
	if err != nil {
		return err
	}
	return l.addVanished(lost(replay(ix, nil), now.ix), now.ix)
}
