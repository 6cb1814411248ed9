//! Common given names and surnames, so that a name used as a key, slug or value stays unread even
//! where it recurs. Names that are also everyday words of APIs (`mark`, `page`) are not listed.

use std::{collections::HashSet, sync::OnceLock};

/// Any word of the token is a name. `words` are lower case.
pub(in crate::redact) fn is_name(word: &[u8]) -> bool {
    static SET: OnceLock<HashSet<&'static [u8]>> = OnceLock::new();
    (3..=12).contains(&word.len())
        && SET
            .get_or_init(|| NAMES.split_ascii_whitespace().map(str::as_bytes).collect())
            .contains(word)
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
winston wojciech yuki yuto zahra";
