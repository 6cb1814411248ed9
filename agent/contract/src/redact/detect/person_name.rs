//! Common given names and surnames, so that a name used as a key, slug or value stays unread even
//! where it recurs. Names that are also everyday words of APIs (`mark`, `page`) are not listed.

use std::{collections::HashSet, sync::OnceLock};

use crate::redact::vocabulary;

/// Any word of the token is a name. `words` are lower case.
pub(in crate::redact) fn is_name(word: &[u8]) -> bool {
    static SET: OnceLock<HashSet<&'static [u8]>> = OnceLock::new();
    (3..=12).contains(&word.len())
        && SET
            .get_or_init(|| NAMES.split_ascii_whitespace().map(str::as_bytes).collect())
            .contains(word)
}

/// A given name and a family name run together (`juliewagner`, `pavelgoldberg7`), or a name with an
/// initial (`jdupont`): one of them is known, and the rest is no word of the vocabulary. `word` is in
/// lower case.
pub(in crate::redact) fn is_joined_name(word: &[u8]) -> bool {
    let digits = word.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    let letters = word.get(..word.len() - digits).unwrap_or_default();
    if !(5..=28).contains(&letters.len()) || !letters.iter().all(u8::is_ascii_lowercase) {
        return false;
    }
    let is_with_initial = letters.get(1..).is_some_and(is_name)
        || letters.split_last().is_some_and(|(_, name)| is_name(name));
    if is_with_initial && std::str::from_utf8(letters).is_ok_and(|word| !vocabulary::is_word(word))
    {
        return true;
    }
    let is_unknown =
        |part: &[u8]| std::str::from_utf8(part).is_ok_and(|part| !vocabulary::is_word(part));
    // The longest name counts: `victoria` before `victor`.
    let ends = || 3..=letters.len().saturating_sub(3);
    let given = ends()
        .rev()
        .filter_map(|at| letters.split_at_checked(at))
        .find(|(given, _)| given.len() >= 4 && is_name(given));
    let family = ends()
        .filter_map(|at| letters.split_at_checked(at))
        .find(|(_, family)| family.len() >= 5 && is_name(family));
    given.is_some_and(|(_, rest)| is_name(rest) || (rest.len() >= 4 && is_unknown(rest)))
        || family.is_some_and(|(rest, _)| is_unknown(rest))
}

/// How family names end that no list holds all of; with letters before the ending.
const FAMILY_ENDINGS: [(&str, usize); 34] = [
    ("nson", 2),
    ("rson", 3),
    ("lson", 2),
    ("tson", 2),
    ("kson", 2),
    ("dson", 2),
    ("sson", 3),
    ("nsen", 2),
    ("ssen", 3),
    ("lsen", 2),
    ("rez", 3),
    ("dez", 3),
    ("lez", 3),
    ("mez", 3),
    ("nez", 3),
    ("guez", 2),
    ("quez", 2),
    ("mann", 2),
    ("stein", 3),
    ("berg", 4),
    ("gaard", 3),
    ("quist", 3),
    ("owski", 2),
    ("ewski", 2),
    ("inski", 2),
    ("ovsky", 2),
    ("insky", 2),
    ("czyk", 3),
    ("wicz", 3),
    ("ovich", 2),
    ("evich", 2),
    ("escu", 3),
    ("enko", 3),
    ("opoulos", 2),
];

/// A family name by how it is formed: `mcallister`, `kowalewski`, `eriksson`. `word` is in lower
/// case.
pub(in crate::redact) fn is_family_name(word: &str) -> bool {
    let is_formed = || {
        FAMILY_ENDINGS
            .iter()
            .any(|(ending, least)| word.strip_suffix(ending).is_some_and(|s| s.len() >= *least))
            || word.strip_prefix("fitz").is_some_and(|rest| rest.len() >= 4)
            || word.strip_prefix("mc").is_some_and(|rest| {
                // `mcpservers`, `mcuconfig`
                rest.len() >= 4 && !rest.get(1..).is_some_and(vocabulary::is_word)
            })
    };
    (6..=24).contains(&word.len())
        && word.bytes().all(|b| b.is_ascii_lowercase())
        && is_formed()
        && !vocabulary::is_word(word)
        && !matches!(word, "iceberg" | "worsen" | "coarsen" | "loosen" | "parson")
}

/// `van der Berg`, `de la Paix`: between the names of a person or of a street.
pub(in crate::redact) fn has_particle(words: &[String]) -> bool {
    let is_stranger = |word: &str| word.len() >= 3 && !vocabulary::is_word(word);
    words.windows(2).any(|pair| {
        let [a, b] = pair else { return false };
        match (a.as_str(), b.as_str()) {
            ("van" | "von", "der" | "den" | "de" | "dem") | ("de", "la" | "los" | "las") => true,
            ("van" | "von" | "della" | "ibn", name) => is_stranger(name),
            _ => false,
        }
    })
}

const NAMES: &str = "\
aaron abdul abdullah abigail adam adams adrian agnes ahmad ahmed aisha alan albert alberto alejandra \
alejandro aleksandr alessandro alexander alexandra alexandre alexey alexis alfred ali alice alicia \
alison allison alvarez amanda amelia amina amir amit amy ana anderson andrea andreas andrei andrew \
andrey andrzej angela angelina anita anna anne annette anthony antoine anton antonio arjun arnaud \
arthur ashley astrid audrey augustin aurelie barbara bauer beatrice beatriz becker benjamin bennett \
bernard bertrand bjorn bob boris bradley brandon brenda brian bruno bryan camille campbell carla \
carlos carmen carol carolina caroline carolyn castillo castro catherine cecilia celine chandra \
charles charlie charlotte chen chloe chris christian christina christine christophe christopher \
clara claire claude claudia clement collins connor cristina cynthia daniel daniela daniele danielle \
dave david davies davis deborah dennis denise diana diane diaz diego dieter dimitri dmitri dmitry \
dominique donald donna dorothy douglas dubois dupont durand dylan eduardo edward edwards elena \
elisabeth elizabeth ella ellen emil emilie emily emma emmanuel eric erica erik ernst esther ethan \
eugene eva evans evelyn fabien fabio fatima felix fernandez fernando ferrari fischer flores florence \
florian francesca francesco francis francisco francois franz fred frederic frederick fritz gabriel \
gabriela garcia gareth gary genevieve george georges gerald gerard giovanni giulia giuseppe gloria \
gomez gonzalez gordon greta guillaume gupta gustav gustavo gutierrez hannah hans harold harris harry \
hassan heather heidi heinrich helen helena helene henri henrik henry hernandez hiroshi hoffmann \
howard hugo hughes hussein ian ibrahim igor ingrid irene irina isaac isabel isabella isabelle ivan \
ivanov jacob jacqueline jacques jackson jaime james jamie jane janet janice jason javier jean \
jeanne jeff jeffrey jennifer jenny jens jeremy jerome jerry jesse jessica jesus jim jimenez \
jimmy joan joanna joao joe joel johan johann johannes john johnny johnson jonas jonathan jones jordan \
jorge jose josef joseph josephine joshua joyce juan juanita judith julia julian julie julien juliette \
jurgen justin kaiser kapoor karen karim karin karl karla katarzyna kate katharina katherine kathleen \
kathryn katie keith kelly kenji kenneth kevin khan kim klaus klein koch konstantin krause kristin \
krzysztof kumar kyle lars larry laura laurence laurent lauren lefebvre lena leo leon leonard leonardo \
leroy leslie liam lily linda lindsay lisa lopez lorenzo louis louise luca lucas lucia lucie lucy luis \
luisa lukas luke magdalena malik manuel marc marcel marco marcos marcus margaret maria mariam marie \
marina mario marion marta martha martin martina martinez mary maryam matteo matthew matthias matthieu \
maurice mauricio maxime megan mehmet melanie melissa mendez mendoza meyer michael michel michele \
michelle miguel mike mikhail miller mitchell mohamed mohammad mohammed monika monique morales moreau \
moreno morgan morris muhammad muller mustafa nadia nancy naomi natalia natalie natasha nathalie \
nathan neil nguyen nicholas nicola nicolas nicole nikolai nina noah nora norman olga oliver olivia \
olivier omar oscar otto pablo pamela paola parker pascal patel patricia patrick patrizia paul paula \
paulina paulo pavel pedro perez peter petra petrov philip philippe phillip pierre piotr priya rachel \
rafael rahul raj rajesh ralph ramirez ramon ramos raphael raquel raymond rebecca renate ricardo \
richard richter rivera robert roberto roberts robertson robin robinson rodrigo rodriguez roger roland \
romain roman romero ronald rosa rossi rousseau ruben russell ruth ryan sabine sabrina sakura salvador \
samantha samir samuel sanchez sandra sanjay santiago santos sara sarah scarlett schmidt schmitt \
schneider schroeder schulz schwarz scott sean sebastian serge sergei sergey sergio shannon sharma \
sharon shirley silva silvia simone singh smirnov smith sofia sonia sophia sophie stefan stefania \
stephane stephanie stephen steve steven stewart stuart susan suzanne svetlana sven sylvie takahashi \
tanaka tara tatiana taylor teresa terry theo theodore theresa thierry thomas thompson tiffany timothy \
tobias todd tom tomas tony torres tracy tran travis tyler ursula valentina valerie vanessa vera \
veronica veronika vicente victor victoria vincent viktor vikram virginia vladimir wagner walter wanda \
wang watanabe watson wayne weber wendy werner wilhelm william williams wilson wolfgang wright xavier \
yamada yamamoto yan yasmin yolanda yosef youssef yusuf yves yvonne zachary zhang zhao zimmermann zoe \
alonso arnold barry baker bailey barnes bianchi bianca blanche bonnet bouchard boyer brooks \
bryant burns butler carter clarke coleman conti cooper costa cruz dagmar delgado denis duval dmitriy \
esposito fernandes fletcher fontaine foster fournier fuentes gallagher gauthier gibson girard graham \
greco griffin guerrero hamid hayes hernan herrera hunter ines iris ismail jacek jarvis johansson \
kaur kelley kowalski kozlov lambert larsson laszlo leblanc leila lewis lombardi magnus malcolm \
marino marsha mateo mathilde medina mercier molina montoya moreira moretti murphy murray navarro \
nelson nielsen novak obrien oconnor oliveira ortega ortiz owens pavlov pereira perrin peterson \
petersen popov powell quentin ramona reyes ribeiro ricci richardson rizzo rossini ruiz samira \
sanders sandoval santoro saunders schaefer schulze sergeev soares sokolov soto souza stevens suarez \
sullivan suzuki svensson thibault thiago vargas vasquez vega vogel volkov wallace walsh werther \
winston wojciech yuki yuto zahra \
ada agnieszka alasdair alec alfredo alistair alvin anders angus anika annika antonia antonella ariana \
armando arturo augusto axel beata benoit berta birgit bjarne bogdan brigitte caleb callum carina \
catalina cecil cedric chiara ciara clarence claus cliff clifford clyde colette cornelia cornelius \
cosimo craig cyril damien damian darius darren deepak delphine derek dietrich dilip donatella dorian \
doris dorothea douglass eamon edgar edith edmund edsger edwin eileen elias elijah elise eliza elodie \
elsa emanuel enrico enrique enzo erika ernesto esme estelle eunice evelyn ezra farah faisal ferdinand \
filip finn fiona florent frances freddie frida gemma geoffrey gerhard gertrude grace gilbert gilles giorgio \
giuliano glenn gloria goran graciela gregor gregory grigory guido gunnar hakan harriet harvey hector \
heike heinz hendrik henrietta herbert herman hilda hiro holger horst hubert hugh hyun ignacio ilya \
imogen ingo irving isabela isaiah ivana ivy jada jakob jakub jana janek jared jarek jasmin jasmine \
javed jeanette jerzy joachim joanne joaquin jochen jolanta josephina josie jozef juana julio jun \
jurgen kaito kamal kareem karina kasper katja katrin kavita kay keiko kerry khalid kiran klara konrad \
kristen kristina kurt lakshmi lamar lance latif lavanya leandro lennart leona leonie leopold lev \
lewin lidia liesel lionel lise loretta lothar lucille ludwig lukasz lynn mabel maeve maksim malala \
manfred manuela marcin margot marianne marisa marjorie marlene marvin mateusz maureen maya meera \
mehdi milena milos mina miriam mirko mohan moises moritz moshe muriel myriam nadine \
nandini natascha nelly nestor nigel nikhil nils nikita noel noemi noor norbert odette olaf oleg \
olivier oskar ottavia pascale pauline pawel penelope pernille petr philippa phoebe pilar \
piotr prakash pranav quincy radia raj rafal ralf ramesh randall rania rashid raul ravi reinhard \
reza rita robyn rodney rohan rolf ronan rosalind rosemary roxana rudolf rupert sachin sadie safia \
salma sameer sandeep sanjana saskia sebastien selma seth shane shreya siegfried sigrid silvana \
simona soren stanislav stella stig sunil suresh susanna sybille tamara tariq tatsuya tess thelma \
theodor tim tina tobiah torsten trevor ulf ulrich ulrike uma valentin valeria vijay viola vivian \
vlad volker waldemar waltraud wenzel wilfried wilhelmina wolfram xavi yannick yasmine yoko yuri \
zain zara zeynep zoltan zuzana \
abbott acosta adler aguilar albrecht allison andersen andersson arroyo atkinson ayala baldwin \
banerjee barnett barrett bartlett becerra benoit bergman bernardi berners bhatt bjornson blackwell \
blanchard bloch bohm bolton borg bradshaw brandt braun brennan bryson buchanan caballero calderon \
callahan cameron campos cannon carlson carpenter carroll castaneda cerf chandler chapman chavez \
chevalier choi chowdhury christensen colombo connolly contreras corbett cortez cunningham curtis \
dahl dalton davidson dawson deluca desai dijkstra dominguez donnelly doyle dubey duncan dunlap \
eckert ehrlich einstein engel engelbart engstrom eriksson escobar espinoza estrada farrell faulkner \
feynman figueroa fitzgerald fleming franklin frazier freeman friedman fujimoto fukuda gallo \
gauss gentile gibbs gilmore goldberg goldman goldstein goodman gosling graves gustafsson gutmann \
guzman haas hahn hamilton hammond hansen hansson hartmann hawking heinemann henderson hendricks \
herrmann hinton hoare hofmann holland holmes hopper horvath huber hudson huffman ibarra ingram \
iyer jacobs jacobson jankowski jenkins jensen johansen johnston jorgensen juarez kaplan karlsson \
kato kawasaki keller kemeny kennedy kernighan kessler khanna kimura kirk knuth kobayashi koenig \
kovacs kramer krishnan kruger kuhn kurtz lamarr lamport larsen lawson lehmann leibniz leitner \
leone lindberg lindgren liskov lovelace lozano ludwig lund lundberg macdonald mackenzie madsen \
magnusson maier maldonado mancini marchetti markov marquez martinelli matsumoto mccarthy \
mcdonald mcgrath mckenzie mclean meier mendes menon merkel metcalfe miranda mishra montgomery moser \
moss mukherjee munoz nagy nair nakamura neumann newton nicholson nikolaev nilsson nowak nunez \
obrien ochoa olsen olsson orlov osborne pacheco padilla paganini papadopoulos parisi parsons pascual \
patterson paulsen pearson pedersen pellegrini penrose pfeiffer phillips pineda planck poincare \
popescu prasad quinn ramsey rasmussen reddy reilly reinhardt reynolds rinaldi ritchie rivas \
robbins rojas romano rosenberg rosenthal rossum rousseau ryder saito salazar salinas sandberg sato \
schafer schmid schmitz schreiber schubert schultz schumacher schuster seidel serrano shah shannon \
shapiro sheppard sievers simmons simpson sinclair solomon sorensen stallman stein steiner stroustrup \
sundberg svoboda swanson szabo takeda tanenbaum thompson thomsen thorvald tomlinson torvalds trujillo \
turing turner valdez valencia vaughn velasquez villanueva vinci virtanen vogt voss walker walters \
warren weiss wheeler whitaker whitfield wiener wilkinson winkler wirth wolff wozniak \
yamaguchi yang yilmaz yoshida zamora zapata ziegler zimmerman zuse \
aarav abdulrahman abebe abiodun achieng adebayo adeyemi aditya adrien agarwal aishwarya aleksei \
alessia allen almeida amara ananya anastasia anil anneliese araujo arslan aydin ayse babatunde \
bakker barbieri barbosa bekele bergstrom bilal bondarenko bose brouwer burak carvalho celik \
chatterjee cheng chidi chinedu cisse coulibaly daan dang davide deepika dekker demir deng diallo \
dimitriou ding diya dlamini duong ekaterina eleni emeka emre fatma faure federico femke feng \
ferreira folake garnier georgiou giordano giorgia gonzales gueye haddad haile hamza haruto hatice \
haugen hendriks hina hoang hoffman huang huda huong huseyin hussain ifeoma ishaan jain jannik \
jansen jiang jihoon jing jiwoo joaquim joshi kamau kaminski karima kaya keita kenta khadija \
khoury khumalo kipchoge koehler kofi konate korhonen kovalenko kowalska krueger kuznetsov kwame \
layla lebedev lefevre leticia lewandowski liang lindqvist linh mahmoud makinen malgorzata mandela \
mansour mathieu mehta meijer mensah ming minho minjun moore morel morozov mueller mulder mutua \
mwangi nabil nascimento ndiaye neha ngozi nieminen nikolaidis njoroge nkechi nkosi noura oceane \
odhiambo okafor okonkwo oksana oluwaseun oluwatobi otieno ouattara ozturk persson pham phan \
pillai pooja rafaela rodrigues rohit russo saeed sahin saleh salim sander sanne sarr sasaki \
seoyeon shevchenko sithole smit solberg stavros sunita sylvain szymanski takashi tang tarek \
tatyana temitope tesfaye thanh tomasz toure traore tunde verma vihaan visser vivek vries walid \
wanjiru wisniewski wojcik xiao xiaoming yiannis yulia zainab zbigniew zheng zhou zielinski";
