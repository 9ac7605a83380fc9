package main

import "github.com/spf13/cobra"

// topics are pages of help that belong to no single command. docs/cli.md has them, too.
func topics() []*cobra.Command {
	return []*cobra.Command{
		{Use: "places", Short: "How registries and directories are written", Long: topicPlaces},
		{Use: "exit-codes", Short: "What the exit code says", Long: topicExitCodes},
		{Use: "json", Short: "The fields of machine output", Long: topicJSON},
		{Use: "credentials", Short: "Private registries: accounts and certificates", Long: topicCredentials},
	}
}

const topicPlaces = `A place is a registry's repository or a directory.

Registry: [HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST], as docker writes it. A name without a host is on
Docker Hub: alpine is docker.io/library/alpine. HOST with a dot or a port, or reg://HOST, is a registry
as a whole: ghcr.io, localhost:5000.

Directory: PATH[:TAG][@DIGEST], where PATH begins with ./ ../ or / (or is . or ..), or with a Windows
drive. It holds an OCI image layout. The tag begins at the last colon of the last component. A slash
at the end says that everything before it is the path: ./a:b/ is the directory "a:b", and ./a:b/:1 its
tag 1. Without that slash, a directory that exists under exactly the name that was given is meant, not
a tag; if both readings exist, the name is refused as ambiguous. Nothing in a path is an escape.

Memory: mem://NAME, for serve alone.

SCHEME://PATH[:TAG][@DIGEST] is the strict form that does not depend on what exists: ocidir://m:1. There,
and only there, %3A, %40 and %25 stand for the characters : @ and % in a path.

A name without tag and digest means the tag latest; as the target of a copy, the tag of the source.`

const topicExitCodes = `Every command ends with one of these codes:

    0  done
    1  some work failed, or several failures are of different kinds
    2  usage or configuration: the command line cannot be carried out; nothing was done
    3  not found: no such registry's repository, tag, digest or directory; or there are tags, and none
       matches copy --tags
    4  not allowed: credentials are missing or wrong, or do not suffice
    5  rate limited: the registry wants fewer requests
    6  verification failed: content is not what its digest says, or stored data is damaged; verify found
       something missing or damaged
   10  differences: copy --dry-run --exit-code found something to copy
  130  interrupted (SIGINT); 143 for SIGTERM

serve that is interrupted ends with 0, and with 1 if requests had to be cut after --grace.

The first interrupt stops the work and keeps every blob that was transferred whole; the same command
moves the rest. The second ends the program at once. Neither leaves anything half-written that a reader
could see.`

const topicJSON = `Fields may be added; those that are here keep their names and meaning. Fields that are empty or zero
may be left out.

copy --output json prints one object on stdout:

  dryRun      whether this is what would be done
  copied, unchanged, failed
              numbers of images
  blobs, manifests
              how many were moved
  mounted, present
              blobs that did not have to move: the target could take them from elsewhere in the same
              registry or on the same disk, or had them
  bytes       how many were moved
  retries     how often a transfer broke and went on
  seconds     how long it took
  images      one object for each image: source, target, mediaType, digest, size (of the manifest),
              outcome (copied, unchanged, failed, would-copy), referrers (how many signatures, SBOMs and
              the like are at the target now), error

copy --progress json prints one object a line on stderr for every event:

  time        RFC 3339
  event       image-started, image-done, planned, started, bytes, retried, moved, mounted, present, failed;
              note; error
  source, target
              the image that it is about
  mediaType, digest, size
              the blob or manifest that it is about; the image's manifest in image-done
  bytes       in bytes: how many more have moved. Those of one blob are added up for a quarter of a second
  outcome     in image-done: copied, unchanged, failed
  error       in retried, failed and image-done; in error: what failed
  hint        in error: what can be done about it, if that is known
  note        in note: what is told to people, and is no failure

Errors of any command come in this form then, one line with the event error for each, also those of the
command line; the exit code says more. With -v, log lines are JSON with time, level and msg, and no event.

ls --output json prints place, and either tags or repositories. inspect --output json prints a tree of
nodes: ref, descriptor, artifactType, annotations, config, layers, manifests, referrers, size (distinct
bytes of the node and what is below it, without referrers).

verify --output json prints one object:

  place, deep what was looked at, and how
  repositories, manifests, blobs
              how many were looked at
  bytes       how many were read and hashed
  unneeded    blobs that nothing needs
  sparse      manifests that an index lists and that were left out, which is no problem
  bad, notes, repaired
              numbers of problems: what is missing or damaged, what is untidy, what was repaired
  seconds     how long it took
  problems    one object for each: kind (missing, damaged, wrong size, no file, unreadable, index, entry;
              vanished, foreign, abandoned, which are notes), bad, place, digest, path, mediaType, size (as
              it should be), manifest, tags (all that need it), neededBy (manifests that name it), error,
              repaired, repairError

gc --output json prints one object:

  place, dryRun
              where, and whether this is what would be done
  removed, freed
              how many blobs, and how many bytes became free
  repositories
              one object for each: place, removed (blobs: digest, size, shared when the file has other
              names in other layouts and nothing becomes free), untagged (descriptors of the images
              without a tag that went), kept (blobs that are needed), leased (that another process has
              just put or found), young (younger than --grace), vanished (descriptors of images kept
              although another tool dropped them from index.json), freed, leftovers (files of interrupted
              writers that went), clockMoved (ages were unknown, as somebody set the clock), error

serve --output json prints one object as soon as the server can be used: url, host (HOST:PORT, with the port
that it got), places. With --progress json, and with --log-format json, every line on stderr is JSON:
either of the log, with time, level, msg, and for requests id, subject, remote, method, endpoint,
repository, resource, digest (where the resource does not say it), status, received, sent, duration (ns),
agent, error; or a note or an error, with time and event, as of copy.

config check --output json prints file, kind and places (how many there are).

verify --progress json prints an object with time, event (checked), digest and size for every blob and
manifest that was looked at.`

const topicCredentials = `ocisync uses the accounts that docker login and podman login have stored, and their credential
helpers. It stores none itself, and never prints one.

Registries are spoken to over HTTPS. On this machine (localhost, 127.0.0.1, [::1]) HTTP is tried where
HTTPS is not spoken. For any other registry without TLS say --plain-http HOST. A registry whose
certificate comes from an authority of your own needs --ca-file HOST=FILE; --insecure HOST does not
verify the certificate at all.`
