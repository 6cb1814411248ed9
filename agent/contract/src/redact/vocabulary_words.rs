//! The words that APIs are made of, sorted, in the singular where the plural is regular.
//!
//! Counted over published API descriptions (words that several independent vendors use in paths,
//! parameters and properties), read by hand, without names of persons and places, and completed
//! with words of tools and protocols.

pub(super) const WORDS: &str = "\
a a11y abbreviation abort about absolute abstract abv accept acceptance accepted access accessed \
accessibility accessible accesstoken accordion account accounting accuracy ack acknowledge \
acknowledged acknowledgement acl action activate activated activation active activity actor \
actual actuator ad add added addition additional addon addr address adjust adjusted adjustment \
admin administrative administrator ads advanced advisories affected affiliation after age agency \
agent aggregate aggregation agreement air airlines airport album alert alg algorithm alias \
alignment all allergies allocated allocation allow allowance allowed alpha already alt alternate \
alternative altitude always amount analysis analytics analyze ancestor anchor and android angle \
animal annotation annotators annual anonymous answer answered antenna any anything api apidoc \
apikey apk app append applicable application applied apply appointment approval approve approved \
architecture archive archived are area arg argument array arrival article artifact artist as asc \
ascending asin ask asn aspect assembly assessments asset assetlinks assign assigned assignee \
assignment assistants associated association async at attach attached attachment attempt \
attempted attendees attr attribute attribution aud audience audio audit auth authenticate \
authenticated authentication author authority authorization authorize authorized auto \
autocomplete automatic availability available avatar average avg avi avif avoid avro avs away \
aws b b2b b2c back backend background backlog backup badge balance band bandwidth bank banned \
banner bar barcode base base64 based basic basis batch battery baz be bearer bearing before \
begin beginning behavior beneficiary benefit beta between bgp bic bid big billable billed \
billing bills bin binary binding bio bird birth birthday bit bitrate blob block blocked blocker \
blocking blog bmp board body book booking bookmark bool boolean boost border bot bottom bounced \
boundary bounds box branch brand branding break breakdown bridge broadcast brokers brotli \
browser bson bucket budget buffer build building built bulk bundle bus business button buy buyer \
by byte bz2 c ca cache cached calculate calculated calculation calendar call callback caller \
calling camera campaign can canary cancel canceled cancellation cancelled candidate candles \
canonical canvas cap capability capacity capital caption capture captured car carbon card \
carousel carrier cart case cash cat catalog category cause cbor cc cdn cell center century cert \
certificate chain challenge change changed changelog channel chapters char character charge \
charged charset chart chat check checked checkin checkout checkpoint checkpoints checksum child \
children choice chunk cid cidr cipher citation city claim class classification clean clear click \
clicked client clip clock clone close closed closing cloud cluster cmd cname co code cohorts col \
collaborators collect collected collection color colour column combinations combined command \
comment commerce commercial commission commit commitment committed common communication \
community company compare comparison compatibility compatible complete completed completion \
compliance component composition compound compress compression compute computed concept \
concurrency concurrent condition conference confidence config configmaps configurable \
configuration configure configured confirm confirmation confirmed connect connected connection \
connectivity connector consent console const constraint constructor consumed consumer \
consumption contact container contains content context continuation continue continuous contract \
contribution contributor control controller conversation conversion convert converted cookie \
coordinate copy copyright core corporate corpus correct correction correlation cors cost count \
counter country countrycode county coupon couriers courses cover coverage cpu crc crc32 create \
created creation creator credential credit creditor criteria critical crl cron crop cross crs \
crv crypto csr csrf csrftoken css csv cty culture cumulative currency current cursor custom \
customer cve cvv cycle d daily dark dashboard dat data database dataset datasource datatype date \
datetime day db deactivate deadline deal deb debit debtor debug decade decimal decision \
declaration decline decode decorator decrypt default deferred defined definition deflate delay \
delayed delete deleted deletion delimiter delivered delivery delta demand demo deny department \
departure dependency dependent deploy deployment deposit deprecated depth der derived desc \
descendants descending description descriptor design desired desktop destination destructor \
detail detailed detect detected detection dev developer development deviation device dhcp \
diagnoses diagram dialog diameter dict diff digest digit digital dimension dir direct direction \
directory disable disabled disconnect discount discovery dish disk display displayed disposable \
disposition dispute distance distinct distribution district division dmg dns do dob doc document \
documentation docx dog doi domain donation done doors double down download downloaded downstream \
downtime draft draw drip drive driver driving drop dry dryrun ds dst dt due duplicate duration \
dynamic e ean earliest early ec2 echo edge edit editable edited edition editor effect effective \
egress eip elapsed electronic element elevation eligibility eligible email embed embedded \
embeddings emergency emoji employee employer empty en enable enabled enclosure encode encoded \
encoding encounters encrypt encrypted encryption end ended ending endpoint endswith endtime \
energy enforce engine eni enrolled enrollment entered enterprise entity entry enum env envelope \
environment eot epics episode epoch eq equation equity equivalent erc20 err error escalation \
estimate estimated etag eu evaluate evaluation event everything evidence exact example exams \
exceeded except exception excess exchange exclude excluded exclusion exclusive exe exec execute \
execution exempt exemption existing exists exit exp expand expanded expected expense experience \
experiment expiration expire expired expiry explain explanation explicit explorer export \
exported expose exposed expression ext extend extended extension external extra extract \
extraction f face facet facility factor fail failed failure fake fallback false family fare fast \
fatal favicon favorite fax feature featured federal fee feed feedback fetch field file filename \
filesize filetype fill filter filterable filtered final finance financial find finetune \
fingerprint finish finished fips firewall firmware first firstname fish fit fix fixed flac flag \
flatten flavor flight float floor flow folder follow followers following font foo footer for \
forbid force forecast forgot fork form format formatted formula forward forwarded forwarding \
found fps fqdn frame fraud free frequency fresh friday friendly friends from front frontend ft \
ftp fuel fulfillment full fully func function funding funds funnels future fuzzy g gadget gain \
gallery gate gateway gender general generate generated generation generic genre geo geocode \
geohash geojson geolocation geometry get getter gid gif gift git given global gmt go goal \
government gps grade gradient grants granularity graph graphql gravatar grid gross group \
grouping grpc gt gte gtin guarantee guaranteed guest guid guidance gz gzip h h264 h265 hal hand \
handle handler handling hard hardware has hash having head header heading headline health \
healthz heartbeat height hello help hex hidden hide hierarchy high highest highlight hint \
historical history hit hmac hold holder holiday home homepage hook hop horizontal host hosted \
hostname hotels hotp hour hourly href hreflang html http http2 http3 hub huge humans \
hyperparameter hypothesis i i18n iat iban iccid icmp ico icon id idempotency identification \
identifier identity idle ids idtoken if ignore ignored ilike image imap imei img impact imperial \
implementation import importance imported imsi in inactive inbound inbox incident include \
included inclusive income incoming incomplete increase increment indent index indexed indicator \
indices individual industry inference info information ingress inherited ini init initial \
initiated inline inner input insert insights install installation installed installments \
instance instant institution instructed instruction instrument insurance int integer integration \
intended intent inter interaction interest interface intermediate internal international \
interval interviews introspect invalid inventory invitation invite invited invocations invoice \
invoiced io iops ios ip ips ipv4 ipv6 is isbn isnull iso iso8601 iss issn issuance issue issued \
issuer item j jar jitter job join joined journal jpeg jpg js json jsonapi jsonl jsonld jsx jti \
jurisdiction jwk jwt k k8s keep kerberos kernel kernelspecs key keyword kind known kty kwarg l \
l10n lab label labeling lag landing landscape lang language large last lastname lat late latency \
latest latitude launch layer layout ldap ldjson lead leaf leagues leases leave ledger left leg \
legacy legal legend length lenient lens less lessons letter level library license life lifecycle \
lifetime light like limit limited line link linked linux list listed listing little live \
liveness livez lng load loadbalancers loan loc local locale locality localization localized \
location lock locked log logged logging logic login logo logoff logout lon long longitude look \
lookup loop loss lost lot low lower loyalty lt lte m mac machine mail mailing main maintenance \
major make manage managed management manager mandate mandatory manifest manual manufacturer map \
mapped mapping margin markdown marked marker market marketing marketplace markup mask masked \
mass master match matched matching material matrix max maximum mb mcc md md5 md5sum me mean \
measure measurement media median medications medium mem member membership memo memory mentions \
menu merchant merge merged message messaging met meta metadata meters method metric mfa mfa2 \
microphone micros microsecond mid middle migrate migration milestones millis millisecond mime \
min mine minimum minor minute mirror miss missing mjs mkv mobile mock modal mode model moderate \
moderator modification modified modifier modify module monday money monitor monitoring month \
monthly more mortgages most motor mov move moved movies mp3 mp4 mpn ms msg msgpack msisdn mttr \
mtu multi multiple multiplier music must mute muted n name namespace nan nanoid nanos nanosecond \
nat national nationality native nav navigation nb nbconvert nbf ndjson near nearby nearest needed needs \
negative neq net network neutral new newsletters next nfc nft nic nickname night nightly nil nin \
no node nominal non nonce none nonprofit normal normalized not note nothing notice notification \
notified notify notnull now ns ntp null nullable num number numeric o oauth oauth2 object \
objectid observation occupancy occurred occurrence ocsp octet odata odt of off offer office \
offline offset ogg oidc ok old oldest on onboarding oncall one online only op opacity open \
openapi opened openid opening operating operation operator opportunities ops opt optimize \
optimizer option optional or orbit orc order orderbook ordered ordering ordinal org organization \
orientation origin original os otf other otp out outbound outcome outer outgoing output outside \
outstanding over overall overdue override overview overwrite own owned owner ownership p p12 p50 \
p90 p95 p99 pack package packet page paged pager pagesize pagination paging paid pair pan panels \
parallel param parameter parcels parent parking parquet parse parsed part partial participant \
participation partition partner party pass passcode passed passengers passphrase passthrough \
password past patch path pathway patient pattern pause pay payable payee payer payload payment \
payout payroll pct pdf peak peer peering pem penalty pending people per percent percentage \
performance performed perimeter period permanent permission permit persist persistent person \
personal pet pfx phase phone photo phrase physical pick pickup picture pid pin ping pinned pipe \
pipeline pitch pixel place placed placeholder placement plain plan planned platform play \
playback player playground playlist plugin plus png po podcasts pods point pointer policy poll \
polygon pong pool pop3 popular populate population popup port portal portfolio pos position \
positive possible post postal postcode posted poster postmortem power pptx practitioners pre \
precision predicate predicted prediction preference preferred prefix premium prepaid preparation \
prepare prescriptions presence present presentation preserve pressure pretty prev preview \
previous price pricing primary principal print printer prior priority privacy private pro \
probability process processed processing prod producers product production profile profit \
program progress project prometheus promo promote promotion prompt proof property protected \
protection protein protobuf protocol provided provider provision proximity proxy pub public \
publication publish published publisher pull purchase purchased purpose push put q qps qr qty \
qualified qualifier quality quantity quarter query question queue queued quic quiet quizzes \
quota quote r radio radius ram random range rank ranking rapidoc rate rated ratelimit rating \
ratio raw re reachable read readable readiness reading ready readyz real realtime reason reboot \
receipt receive received receiver receiving recent recipient recommend recommendations \
recommended reconciled record recorded recording recover recovery recurrence recurring recursive \
red redemption redirect redoc ref reference referenced referral referrer refresh refreshtoken \
refund refunded reg regenerate regex region register registered registration registry regular \
reject rejected rejection rel related relation relationship relative relay release released \
relevance reload remaining reminder remote removal remove removed rename render rendered renew \
renewal rental reopen reorder rep repeat replace replacement replay replicas reply repo report \
reporting repository representation reputation request requested requestor require required \
requirement rerank res reseller resend reservation reserve reserved reset resize resolution \
resolve resolved resource response responsible rest restart restore restricted restriction \
result resume retail retention retrieval retrieve retry return returned revenue reverse review \
reviewed reviewer revision revoke reward rfc3339 rides right risk road robots role roll rollback \
room root rotate rotation round rounding route routing row rpc rpm rps rss rtf rtt rule run \
runbook runners running runtime s s3 safe safety salary sale salt same saml saml2 sample sandbox \
satellite saturday save saved savings scale scan scanner scenario schedule scheduled scheduling \
schema scheme school scope score screen screenshot script sdk search searchable season seat sec \
second secondary secret section sector secure security seed seen segment select selected \
selection selector self sell seller selling send sender sending sensitive sensor sensors sent \
sentence sentiment seo separator seq sequence serial series server service session sessionid set \
setter setting settled settlement setup severity sex sftp sha sha1 sha256 sha512 shape shards \
share shared sharing sheet shift ship shipment shipped shipping shopping short should show sid \
side sidebar sign signal signature signed signer signin signing signout signup silences silent \
sim similar simple simulation since single site sitemap size skills skin skip skipped sku sla sli slice \
slider slo slot slow slug small smart sms smtp snapshot snippets soap social socket soft \
software sold solution something song sort sound source sp space spam span speaker spec special \
specific specification speech speed spend split sponsor sports spot sprints sql sqlite src ssh \
ssl sso stable stack staff stage staging stamp standard stars start started starting startswith \
stat state statement static station statistics status step sticky stock stop storage store \
stored str strategy stream street strict strike string strip struct structure stub student study \
stuff style sub subaccount subdivision subdomain subject submission submit submitted subnet \
subscribe subscribed subscriber subscription subtitle subtotal subtype succeeded success \
successful suffix suggest suggested suggestions sum summarize summary sunday super superuser \
supplier supply support supported supporting suppress surcharge surface surname survey suspend \
suspended svg swagger swap switch symbol sync synchronous synonyms system t tab table tablet tag \
tagged tagline take tar target task tax taxable taxonomy tcp teachers team technical technology \
telemetry telephone temp temperature template temporary tenant tensor term terminal terminate \
termination test testing text than the theme theory thing third this thread three threshold \
throttle through throughput thumb thumbnail thumbprint thursday ticker ticket tier tiff tilt \
time timeframe timeline timeout timer timeseries timesheets timestamp timezone tiny tip title \
tls to toast todo toggle token tokenizer tolerance toml tool toolbar tooltip top topic total \
totp totp2 tournaments town trace track tracked tracker tracking trade trading traffic train \
training trait trans transaction transcribe transcript transcription transfer transform transit \
transition translate translated translation transmission transport trash travel tree trending \
trial trigger trim trip trivial true truncated trust trusted ts tsv tsx ttf ttl tuesday tunings \
tunnel tuple tv two tx txn txt typ type tz u udp ui uid ulid unassign unassigned unavailable \
unblock unblocked unconfirmed undefined under unfollow unicode union unique unit unix unknown \
unlike unlimited unlock unlocked unmute unpaid unpin unpublish unread unseen unsubscribe \
unsupported until untrusted unverified up upc upcoming update updated upgrade upload uploaded \
upper upsert upstream uptime urgent uri url us usable usage use used user userinfo username \
using utc utf8 utilization utm uuid v vacancies val valid validate validated validation \
validator validity value var variable variance variant variation vat vector vehicle vendor venue \
verb verbose verification verified verifier verify version vertical via vid video view viewed \
viewer vin virtual visibility visible visit vlan vm vocab vocabulary voice voicemails void \
volume vote vouchers vpc vpn vulnerability vxlan w wait waiting wallet war warehouse warn \
warning wasm watch watched water watermark wav way weather web web3 webhook webm webp website \
wednesday week weekday weekend weekly weight weighted welcome well wellknown what whatever when \
where whitelist whoami wholesale widget width wifi win wind window wishlist with withdrawal \
within without woff woff2 word work worker workflow working workspace world write ws wsdl wss x \
x509 x5c x5t xfail xls xlsx xml xmlrpc xsrf xz y yaml yaw year yearly yes yield yml z zero zip \
zipcode zone zoneinfo zst zstd";
